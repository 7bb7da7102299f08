"""Metrics for Prometheus: a file for node_exporter's textfile collector, or an endpoint on loopback.

Source:
    Prometheus' manual, "Metric and label naming" and "Writing exporters": base units, `_total` for counters, times as
    seconds since 1970 and not as ages, so that a scrape that comes late still tells the truth.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from microbatch.errors import WarehouseUnavailable

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

LOOPBACK = "127.0.0.1"


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
def serving(port: int, collector: Collector) -> Iterator[None]:
    """Serve the metrics at `http://127.0.0.1:<port>/metrics` until the end of the block, made anew at each scrape.

    Raises:
        WarehouseUnavailable: the port is taken, or must not be used.
    """
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    try:
        server, thread = start_http_server(port, addr=LOOPBACK, registry=registry)
    except OSError as cause:
        where = f"metrics cannot be served on {LOOPBACK}:{port}"
        raise WarehouseUnavailable(where, f"{cause.strerror}; change `metrics.port` in conf") from cause
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
