"""Metrics for Prometheus: a file for node_exporter's textfile collector, or an endpoint; and beside it how the process is.

Source:
    Prometheus' manual, "Metric and label naming" and "Writing exporters": base units, `_total` for counters, times as
    seconds since 1970 and not as ages, so that a scrape that comes late still tells the truth.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from microbatch.errors import WarehouseUnavailable

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

Health = Callable[[], tuple[bool, Mapping[str, Any]]]
"""Whether all is well, and how each part is."""


def write(path: str, collector: Collector) -> None:
    """Write all metrics to a file in the text format, in one step: a reader sees the old file or the new one.

    Raises:
        OSError: the file cannot be written.
    """
    from prometheus_client import CollectorRegistry, write_to_textfile

    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    write_to_textfile(path, registry)


@contextmanager
def serving(host: str, port: int, collector: Collector, health: Health) -> Iterator[None]:
    """Serve `http://<host>:<port>/metrics`, made anew at each scrape, and `/health`, until the end of the block.

    `/health` is JSON: 200 where all is well, 503 where it is not.

    Raises:
        WarehouseUnavailable: the port is taken, or must not be used.
    """
    from prometheus_client import CollectorRegistry, make_wsgi_app

    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    metrics = make_wsgi_app(registry)

    def answer(asked: dict[str, Any], begin: Any) -> Iterable[bytes]:
        if asked["PATH_INFO"] != "/health":
            return metrics(asked, begin)
        well, told = health()
        status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
        begin(f"{status.value} {status.phrase}", [("Content-Type", "application/json")])
        return [json.dumps({"well": well, **told}, indent=2).encode()]

    try:
        server = make_server(host, port, answer, _Server, _Quiet)
    except OSError as cause:
        where = f"metrics cannot be served on {host}:{port}"
        raise WarehouseUnavailable(where, f"{cause.strerror}; change `metrics.port` in conf") from cause
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing: a scrape is no event."""
