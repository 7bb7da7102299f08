"""How to sign in, said once for two clients: librdkafka, which looks at a topic, and Java's, which Spark reads it with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

SIGN_IN = (
    *("security.protocol", "sasl.mechanism", "sasl.username", "sasl.password"),
    *("ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.key.password"),
    "ssl.endpoint.identification.algorithm",
)
MODULES = {"PLAIN": "plain.PlainLoginModule"}  # any other mechanism here is a SCRAM
# A broker that is away is left to the engine's retry after these; Kafka's own defaults are one and two minutes.
PATIENCE = {"request.timeout.ms": "20000", "default.api.timeout.ms": "30000"}
POLL_MS = 30_000  # of Spark's executors for one poll


def of_librdkafka(options: Mapping[str, str]) -> dict[str, str]:
    """The settings of librdkafka's clients."""
    return {name: options[name] for name in SIGN_IN if name in options}


def of_spark(options: Mapping[str, str]) -> dict[str, str]:
    """The options of Spark's source: Java's settings, each with `kafka.` before its name.

    Their values do not reach a plan or the event log: `spark.redaction.regex` knows the names of those that are secret.
    """
    rest = {name: value for name, value in options.items() if "." in name and name not in SIGN_IN}
    return {f"kafka.{name}": value for name, value in {**PATIENCE, **_sign_in(options), **rest}.items()}


def of_parser(options: Mapping[str, str]) -> dict[str, str]:
    """Spark's options for JSON or CSV, names in lower case."""
    return {name.lower(): value for name, value in options.items() if "." not in name}


def _sign_in(options: Mapping[str, str]) -> dict[str, str]:
    same = ("security.protocol", "sasl.mechanism", "ssl.key.password", "ssl.endpoint.identification.algorithm")
    found = {name: options[name] for name in same if name in options}
    if found.get("ssl.endpoint.identification.algorithm") == "none":
        found["ssl.endpoint.identification.algorithm"] = ""  # how Java writes it
    if "sasl.username" in options:
        module = MODULES.get(options["sasl.mechanism"], "scram.ScramLoginModule")
        user, password = (_quoted(options[name]) for name in ("sasl.username", "sasl.password"))
        login = f"org.apache.kafka.common.security.{module} required username={user} password={password};"
        found["sasl.jaas.config"] = login
    if "ssl.ca.location" in options:
        found |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": options["ssl.ca.location"]}
    if "ssl.key.location" in options:
        chain = Path(options["ssl.certificate.location"]).read_text()
        key = Path(options["ssl.key.location"]).read_text()
        found |= {"ssl.keystore.type": "PEM", "ssl.keystore.certificate.chain": chain, "ssl.keystore.key": key}
    return found


def _quoted(value: str) -> str:
    """A value in the configuration language of JAAS."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
