"""`catalog: true`: tables have their names in the session's catalog."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from microbatch.errors import StateChanged
from microbatch.testing import Bench
from tests.orders import order

pytestmark = pytest.mark.slow


@pytest.fixture
def named(orders: Bench) -> Iterator[Bench]:
    orders.write("conf/base/environment.yml", "catalog: true\n")
    yield orders
    for schema in ("bronze", "silver"):
        orders.spark.sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def test_tables_are_found_by_name_and_dropping_the_name_removes_no_row(named: Bench):
    named.land("orders", order(1), order(2))
    named.run("orders")
    assert named.spark.table("silver.orders").count() == 2
    named.spark.sql("DROP TABLE silver.orders")
    named.land("orders", order(3))
    named.run("orders")
    assert named.spark.table("silver.orders").count() == 3


def test_a_name_that_is_another_tables_stops_the_flow(named: Bench, tmp_path: Path):
    named.spark.sql("CREATE SCHEMA IF NOT EXISTS bronze")
    named.spark.sql(f"CREATE TABLE bronze.orders (id BIGINT) USING DELTA LOCATION '{tmp_path}/elsewhere'")
    named.land("orders", order(1))
    with pytest.raises(StateChanged, match="elsewhere"):
        named.run("orders")
