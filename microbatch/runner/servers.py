"""Inputs that servers give, made from conf and the connection it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from microbatch.config.kinds import KafkaConf, RestConf
from microbatch.errors import ConfigError, Problem
from microbatch.retry import with_back_off
from microbatch.sources.kafka import Broker, Format, Kafka
from microbatch.sources.kafka.options import of_parser
from microbatch.sources.rest import Asked, Rest, Server, Spooled

if TYPE_CHECKING:
    from microbatch.runner.inputs import Reader


def rest(reader: Reader, conf: RestConf) -> Rest:
    """An HTTP API; a page is tried again by itself, as conf says of a batch."""
    at, source = reader.connection(conf), reader.source
    auth = conf.auth or at.auth
    server = Server(
        url=conf.url or at.url or "",
        headers={**at.headers, **conf.headers},
        bearer=auth.bearer if auth else None,
        basic=auth.basic if auth else None,
        timeout_s=conf.timeout_s,
        rate_per_s=conf.rate_per_s,
    )
    asked = Asked(
        url=f"{server.url.rstrip('/')}/{conf.path.lstrip('/')}" if conf.path else server.url,
        params=_texts(conf.params),
        records=conf.records,
        paging=conf.paging(),
        cursor_field=conf.cursor.field if conf.cursor else None,
        cursor_param=conf.cursor.param if conf.cursor else None,
    )
    spooled = Spooled(str(reader.checkpoint / "spool"), conf.metadata, conf.unknown_fields)
    return Rest(
        source.name,
        reader.flow.name,
        source.schema,
        spooled,
        reader.checkpoint,
        reader.accept_files,
        server=server,
        asked=asked,
        again=_again(reader),
    )


def kafka(reader: Reader, conf: KafkaConf) -> Kafka:
    """A topic; the first look at it is tried again, as conf says of a batch.

    Raises:
        ConfigError: the schema of a raw source has other columns than `key` and `value`.
    """
    at, source = reader.connection(conf), reader.source
    servers = conf.servers or at.servers or ""
    options = _texts({**at.options, **conf.options})
    if conf.format == "raw":
        _refuse_other_columns(reader)
    return Kafka(
        name=source.name,
        flow=reader.flow.name,
        schema=source.schema,
        topic=conf.topic,
        format=Format(conf.format, conf.metadata, conf.unknown_fields, of_parser(options)),
        starting=conf.starting,
        max_rows=conf.max_rows_per_batch,
        broker=Broker(source.name, servers if isinstance(servers, str) else ",".join(servers), options),
        checkpoint=reader.checkpoint,
        again=_again(reader),
    )


def _refuse_other_columns(reader: Reader) -> None:
    columns = [column.split() for column in reader.source.schema.split(",")]
    fine = all(
        len(words) == 2 and words[0] in ("key", "value") and words[1].upper() in ("STRING", "BINARY")
        for words in columns
    )
    if not fine:
        what = f"source {reader.source.name}: a raw message has the columns key and value, each STRING or BINARY"
        raise ConfigError(Problem(f"jobs/{reader.job.name}.py", what))


def _again(reader: Reader) -> Callable[[Callable[[], Any]], Any]:
    """Tries again what is transient, with the job's own settings."""
    retry = reader.job.conf.retry
    return partial(
        with_back_off,
        attempts=retry.attempts,
        first_wait_s=retry.first_wait_s,
        max_wait_s=retry.max_wait_s,
        told=reader.told,
    )


def _texts(given: Mapping[str, str | int | bool]) -> dict[str, str]:
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}
