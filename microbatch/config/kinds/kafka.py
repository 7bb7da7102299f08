"""What conf may say of a Kafka topic."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from microbatch.config.kinds.source import SourceConf, at_key
from microbatch.config.values import Count, Text

if TYPE_CHECKING:
    from microbatch.config.connection import Connection

REFUSED_OPTIONS: Mapping[str, str] = {
    "bootstrap.servers": "is the key servers, of the source or its connection",
    "group.id": "has no meaning: offsets are kept in the flow's checkpoint",
    "auto.offset.reset": "is the key starting, beside options",
    "enable.auto.commit": "has no meaning: offsets are kept in the flow's checkpoint",
    "isolation.level": "is always read_committed: what a transaction took back was never said",
    "key.deserializer": "is the key format, beside options",
    "value.deserializer": "is the key format, beside options",
    "interceptor.classes": "may change what is read, unseen",
    "failondataloss": "is always true: offsets that are gone stop the flow",
    "startingoffsets": "is the key starting, beside options",
    "endingoffsets": "has no meaning for a stream",
    "subscribe": "is the key topic, beside options",
    "maxoffsetspertrigger": "is the key max_rows_per_batch, beside options",
    "ssl.keystore.location": "is read by Java only; write ssl.certificate.location and ssl.key.location, PEM files",
    "ssl.truststore.location": "is read by Java only; write ssl.ca.location, a PEM file",
}
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


def _option_name(name: str) -> str:
    plain = name.lower().removeprefix("kafka.")
    if why := REFUSED_OPTIONS.get(plain):
        raise ValueError(f"is not allowed: it {why}")
    return name.removeprefix("kafka.")


Options = dict[Annotated[str, AfterValidator(_option_name)], str | int | bool]


class KafkaConf(SourceConf):
    """A Kafka topic.

    Attributes:
        connection, servers: where the brokers are, host:port: the one or the other.
        format: of the values; raw gives `value` and `key` as they are.
        starting: where a new checkpoint begins: with all the topic holds, or with what comes from now on.
        max_rows_per_batch: messages, over all partitions: a backlog is taken in by batches of so many.
        options: how to sign in (`security.protocol`, `sasl.mechanism`, `sasl.username`, `sasl.password`, `ssl.ca.location`,
            `ssl.certificate.location`, `ssl.key.location`, `ssl.key.password`), other settings of a Kafka consumer, and,
            without a dot in their names, Spark's options for JSON or CSV.
    """

    kind: Literal["kafka"]
    connection: Text | None = None
    servers: str | tuple[str, ...] | None = Field(default=None, repr=False)
    topic: Text
    format: Literal["json", "csv", "raw", "debezium"]
    starting: Literal["earliest", "latest"] = "earliest"
    max_rows_per_batch: Count = 1_000_000
    options: Options = Field(default_factory=dict, repr=False)

    @model_validator(mode="after")
    def _is_somewhere(self) -> KafkaConf:
        if (self.connection is None) == (self.servers is None):
            raise at_key("connection", "or servers is needed: one of the two")
        if self.unknown_fields != "ignore" and self.format in ("csv", "raw"):
            raise at_key("unknown_fields", f"{self.format} carries no field names, so leave it out or write ignore")
        if what := sign_in_problem(self.options):
            raise at_key("options", what)
        return self

    def place(self, root: Path) -> str:
        return f"{self.format} messages of topic {self.topic}{f' at {self.connection}' if self.connection else ''}"

    def identity(self) -> dict[str, Any]:
        return {"topic": self.topic, "format": self.format}

    def lacks(self, connection: Connection | None) -> str | None:
        if connection is None or not connection.servers:
            return f"connection {self.connection} has no servers; a kafka source needs them, host:port"
        refused = next((why for name in connection.options if (why := _refusal(name))), None)
        what = refused or sign_in_problem({**connection.options, **self.options})
        return f"connection {self.connection}: options: {what}" if what else None

    def _places(self) -> tuple[str, ...]:
        change = ("_op STRING", "_lsn BIGINT", "_committed_at TIMESTAMP") if self.format == "debezium" else ()
        if self.metadata:
            return (*change, *PLACES)
        return (*change, "_offset BIGINT") if change else ()


PLACES = ("_topic STRING", "_partition INT", "_offset BIGINT", "_timestamp TIMESTAMP", "_key STRING")


def sign_in_problem(options: Mapping[str, object]) -> str | None:
    """What is wrong between the options that say how to sign in, or None; shows no value of theirs."""
    mechanism = str(options.get("sasl.mechanism", ""))
    if "sasl.jaas.config" in options:
        return "sasl.jaas.config: write sasl.mechanism, sasl.username and sasl.password instead"
    if ("sasl.username" in options or "sasl.password" in options) and mechanism not in MECHANISMS:
        return f"sasl.mechanism must be one of {', '.join(MECHANISMS)}"
    if mechanism and not {"sasl.username", "sasl.password"} <= options.keys():
        return "sasl.mechanism needs sasl.username and sasl.password"
    if mechanism and str(options.get("security.protocol", "")) not in ("SASL_SSL", "SASL_PLAINTEXT"):
        return (
            "sasl.mechanism needs security.protocol SASL_SSL (or SASL_PLAINTEXT, which sends what it says in the clear)"
        )
    if ("ssl.certificate.location" in options) != ("ssl.key.location" in options):
        return "ssl.certificate.location and ssl.key.location go together"
    return None


def _refusal(name: str) -> str | None:
    try:
        _option_name(name)
    except ValueError as cause:
        return f"{name} {cause}"
    return None
