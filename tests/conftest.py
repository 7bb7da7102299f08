"""What the engine's tests share. The fixtures `spark`, `rows` and `bench` come from `microbatch.testing`."""

from __future__ import annotations

import pytest

from microbatch.testing import Bench
from tests import orders as suite


@pytest.fixture
def orders(bench: Bench) -> Bench:
    """Two flows over JSON files: ingest (append) and refine (upsert, a critical and a warning rule)."""
    bench.write("jobs/orders.py", suite.ORDERS_JOB)
    bench.write("transforms/orders.py", suite.ORDERS_TRANSFORM)
    bench.write("expectations/orders/orders.yml", suite.ORDERS_RULES)
    bench.write("conf/base/orders.yml", suite.ORDERS_CONF)
    return bench


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest comes first: as the last one it would keep one worker busy, the other idle."""
    items.sort(key=lambda item: item.path.name != "test_kills.py")
