"""Inputs that servers give, made from conf and the connection it names."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from microbatch.config.kinds import RestConf
from microbatch.retry import with_back_off
from microbatch.sources.rest import Asked, Rest, Server, Spooled

if TYPE_CHECKING:
    from microbatch.runner.inputs import Reader


def rest(reader: Reader, conf: RestConf) -> Rest:
    """An HTTP API; a page is tried again by itself, as conf says of a batch."""
    at, retry, source = reader.connection(conf), reader.job.conf.retry, reader.source
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
        params={
            name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in conf.params.items()
        },
        records=conf.records,
        paging=conf.paging(),
        cursor_field=conf.cursor.field if conf.cursor else None,
        cursor_param=conf.cursor.param if conf.cursor else None,
    )
    again = partial(
        with_back_off,
        attempts=retry.attempts,
        first_wait_s=retry.first_wait_s,
        max_wait_s=retry.max_wait_s,
        told=reader.told,
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
        again=again,
    )
