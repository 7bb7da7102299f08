"""A table by its changes: the copy, then each insert, update and delete, once and in order."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal

import pytest

from microbatch.runner.standings import standings
from tests.sources.postgres.conftest import CHANGES, Shop

pytestmark = pytest.mark.slow
ORDER = "order_id BIGINT, status STRING, amount DECIMAL(10,2)"
HISTORY = """History("bronze.orders", keys=["order_id"], newest_by="_lsn", delete_when="_op = 'delete'")"""


def test_the_table_comes_first_and_then_each_change_in_its_order(shop: Shop):
    shop.table()
    shop.database.do("INSERT INTO orders (order_id, status, amount) VALUES (1, 'new', 1.50), (2, 'new', NULL)")
    bench = shop.job("mode: changes", ORDER, 'Append("bronze.orders")')
    assert [outcome.rows_read for outcome in bench.run("shop")] == [2]
    assert bench.run("shop") == []
    shop.database.do(
        "UPDATE orders SET status = 'paid' WHERE order_id = 1",
        "DELETE FROM orders WHERE order_id = 2",
        "INSERT INTO orders (order_id, status, amount) VALUES (3, 'new', 3)",
        "UPDATE orders SET order_id = 4 WHERE order_id = 3",
    )
    assert [outcome.rows_read for outcome in bench.run("shop")] == [5]
    assert bench.run("shop") == []
    told = bench.read("bronze.orders").orderBy("_lsn", "order_id").select("_op", "order_id", "status", "amount")
    assert [tuple(row) for row in told.collect()] == [
        ("insert", 1, "new", Decimal("1.50")),
        ("insert", 2, "new", None),
        ("update", 1, "paid", Decimal("1.50")),
        ("delete", 2, None, None),
        ("insert", 3, "new", Decimal("3.00")),
        ("delete", 3, None, None),
        ("insert", 4, "new", Decimal("3.00")),
    ]


def test_an_upsert_ends_as_the_table_is(shop: Shop):
    shop.table()
    shop.database.do("INSERT INTO orders (order_id, status) SELECT i, 'new' FROM generate_series(1, 50) i")
    bench = shop.job("mode: changes, max_rows_per_batch: 20", ORDER, CHANGES)
    bench.run("shop")
    shop.database.do(
        "UPDATE orders SET status = 'paid', amount = order_id WHERE order_id % 2 = 0",
        "DELETE FROM orders WHERE order_id % 5 = 0",
        "UPDATE orders SET order_id = order_id + 100 WHERE order_id % 7 = 0",
    )
    (waits,) = standings(bench.suite(), bench.suite().job("shop"), datetime.now(timezone.utc))
    assert waits.lag and waits.lag_bytes
    metrics = bench.root / "shop.prom"
    with (bench.root / "conf/base/environment.yml").open("a") as environment:
        environment.write(f"metrics: {{file: {metrics}}}\n")
    bench.run("shop")
    labels = 'flow="ingest",job="shop"'
    assert f'microbatch_source_pending{{{labels},unit="change"}} 0.0' in metrics.read_text()
    assert f"microbatch_source_log_bytes{{{labels}}}" in metrics.read_text()
    assert shop.rows() == sorted(shop.database.rows("SELECT order_id, status, amount FROM orders"))
