"""Backfill: a target derived again, in one commit, beside the checkpoint."""

from __future__ import annotations

import pytest

from microbatch.commands import audit, backfill
from microbatch.errors import ConfigError
from microbatch.testing import Bench
from tests.orders import ORDERS_JOB, ORDERS_RULES, order

pytestmark = pytest.mark.slow

TWICE = '''
from pyspark.sql import functions as F


def refine(orders):
    """Add the cents, doubled."""
    return orders.withColumn("cents", (F.col("amount") * 200).cast("bigint"))
'''
COPY = """
    Flow("copy", reads="bronze.orders", writes=Append("silver.copy")),
    Flow("again", reads="silver.copy", writes=Append("gold.copy")),
)
"""


def derive(bench: Bench, flow: str, where: str | None = None, downstream: bool = False) -> int:
    suite = bench.suite()
    return backfill.execute(suite, suite.job("orders"), flow, where, downstream)


def audited(bench: Bench) -> int:
    suite = bench.suite()
    return audit.execute(suite, suite.job("orders"))


def cents(bench: Bench) -> list[tuple[int, int]]:
    return sorted((row.order_id, row.cents) for row in bench.read("silver.orders").collect())


def test_an_upsert_is_derived_again_in_one_commit_after_its_transform_or_a_rule_was_mended(orders: Bench):
    orders.land("orders", order(1, "1.00"), order(2, "-2.00"), order(3, "3.00"))
    orders.run("orders")
    orders.land("orders", order(4, "4.00"))
    before = orders.versions()["silver.orders"]
    orders.write("transforms/orders.py", TWICE)
    derive(orders, "refine", where="order_id = 1")
    assert cents(orders) == [(1, 200), (3, 300)]
    orders.write("expectations/orders/orders.yml", ORDERS_RULES.replace("min_value: 0,", "min_value: -5,"))
    derive(orders, "refine")
    assert cents(orders) == [(1, 200), (2, -400), (3, 600)]
    assert orders.versions()["silver.orders"] == before + 2
    assert {letter.status for letter in orders.quarantine("orders").collect()} == {"replayed"}
    assert audited(orders) == 0
    orders.run("orders")
    assert cents(orders) == [(1, 200), (2, -400), (3, 600), (4, 800)]
    assert audited(orders) == 0


def test_appended_tables_downstream_are_derived_too_and_their_streams_go_on_behind(orders: Bench):
    orders.write("jobs/orders.py", ORDERS_JOB.rstrip().removesuffix(")") + COPY.lstrip("\n"))
    orders.land("orders", order(1), order(2))
    orders.run("orders")
    derive(orders, "copy", downstream=True)
    assert orders.read("gold.copy").count() == 2
    assert audited(orders) == 0
    orders.land("orders", order(3))
    orders.run("orders")
    assert sorted(row.order_id for row in orders.read("gold.copy").collect()) == [1, 2, 3]
    assert audited(orders) == 0


def test_a_flow_that_reads_a_source_and_a_wrong_where_are_refused(orders: Bench):
    orders.land("orders", order(1))
    orders.run("orders")
    with pytest.raises(ConfigError, match="reads source orders"):
        derive(orders, "ingest")
    with pytest.raises(ConfigError, match="--where"):
        derive(orders, "refine", where="cnts > 1")
