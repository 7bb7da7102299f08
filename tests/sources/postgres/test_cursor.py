"""A table by its cursor: nothing lost, whatever writes meanwhile."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.sources.postgres.conftest import Shop

pytestmark = pytest.mark.slow
BY_TIME = "cursor: updated_at, key: order_id"


def test_rows_are_taken_in_once_and_a_change_is_taken_in_again(shop: Shop):
    shop.table()
    bench = shop.job(BY_TIME)
    shop.database.do("INSERT INTO orders (order_id, status, amount) VALUES (1, 'new', 1.50), (2, 'new', NULL)")
    assert [outcome.rows_read for outcome in bench.run("shop")] == [2]
    assert bench.run("shop") == []
    shop.database.do("UPDATE orders SET status = 'paid', updated_at = now() WHERE order_id = 1")
    assert [outcome.rows_read for outcome in bench.run("shop")] == [1]
    assert shop.rows() == [(1, "paid", Decimal("1.50")), (2, "new", None)]
