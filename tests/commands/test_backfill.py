"""Backfill: a target derived again, in one commit, beside the checkpoint."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest

from microbatch.commands import audit, backfill, rewind
from microbatch.errors import ConfigError, StateChanged
from microbatch.testing import Bench
from tests.orders import ORDERS_JOB, ORDERS_RULES, ORDERS_TRANSFORM, order

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


CENTS = """
    Flow("copy", reads="bronze.orders", transform=orders.refine, expects="orders", writes=Append("silver.copy")),
    Flow("again", reads="silver.copy", expects="orders", writes=Append("gold.copy")),
    Flow("total", reads="silver.copy", transform=orders.total, recompute_by=["updated_at"],
         writes=Replace("gold.total", keys=["updated_at"])),
    Flow("all", reads="silver.orders", writes=Append("gold.all")),
)
"""
TOTAL = '''


def total(orders):
    """The cents of each minute."""
    return orders.groupBy("updated_at").agg(F.sum("cents").alias("cents"))
'''


class Killed(Exception):
    """A staged crash."""


def derive(
    bench: Bench, flow: str, where: str | None = None, downstream: bool = False, crash_at: str | None = None
) -> int:
    def reached(step: str) -> None:
        if step == crash_at:
            raise Killed

    suite = bench.suite()
    return backfill.execute(suite, suite.job("orders"), flow, where, downstream, reached)


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


@pytest.fixture
def chained(orders: Bench) -> Bench:
    """Two flows that derive the same, and below each its readers: rows, groups, changes; three orders, one of them bad."""
    job = ORDERS_JOB.replace("Job, Source", "Job, Replace, Source").rstrip().removesuffix(")")
    orders.write("jobs/orders.py", job + CENTS.lstrip("\n"))
    orders.write("transforms/orders.py", ORDERS_TRANSFORM + TOTAL)
    orders.land("orders", order(1), order(2, "-2.00"), order(3, "3.00"))
    orders.run("orders")
    return orders


def doubled(bench: Bench) -> None:
    bench.write("transforms/orders.py", TWICE + TOTAL.replace('F.sum("cents")', '(F.sum("cents") + 1)'))


def values(bench: Bench, table: str) -> list[int]:
    return sorted(row.cents for row in bench.read(table).collect())


def test_readers_are_derived_from_what_was_just_written_and_go_on_behind_it(chained: Bench):
    doubled(chained)
    derive(chained, "copy", downstream=True)
    for table in ("silver.copy", "gold.copy"):
        assert values(chained, table) == [200, 600], table
    assert values(chained, "gold.total") == [801]
    assert audited(chained) == 0
    chained.land("orders", order(4, "4.00"), order(5, "5.00", minute=1))
    chained.run("orders")
    assert values(chained, "gold.copy") == [200, 600, 800, 1000]
    assert values(chained, "gold.total") == [1001, 1601]
    assert audited(chained) == 0
    derive(chained, "again")  # it has read nothing under its new checkpoint but what came since
    assert values(chained, "gold.copy") == [200, 600, 800, 1000]


def test_a_reader_of_changes_that_appends_them_does_not_append_those_of_the_backfill_twice(chained: Bench):
    doubled(chained)
    derive(chained, "refine", downstream=True)
    before = sorted((row.order_id, row.cents) for row in chained.read("gold.all").collect())
    assert before == [(1, 100), (1, 200), (3, 300), (3, 600)]
    assert chained.run("orders") == []
    assert audited(chained) == 0


def test_a_reader_that_lags_behind_or_never_ran_loses_nothing(orders: Bench):
    orders.write("jobs/orders.py", ORDERS_JOB.rstrip().removesuffix(")") + COPY.lstrip("\n"))
    orders.land("orders", order(1))
    orders.run("orders", flows=["ingest", "copy"])
    derive(orders, "copy", downstream=True)  # `again` never ran: it has all ahead
    orders.run("orders")
    orders.land("orders", order(2))
    orders.run("orders", flows=["ingest", "copy"])
    derive(orders, "copy", downstream=True)
    assert sorted(row.order_id for row in orders.read("gold.copy").collect()) == [1, 2]
    assert [outcome.flow for outcome in orders.run("orders")] == ["refine"]
    assert sorted(row.order_id for row in orders.read("gold.copy").collect()) == [1, 2]
    assert audited(orders) == 0


def test_nothing_is_written_where_a_batch_of_a_reader_is_unfinished(chained: Bench):
    chained.land("orders", order(4))
    chained.run("orders", flows=["ingest", "copy"])
    chained.crash("orders", before="target", flows=["again"])
    before = chained.versions()
    with pytest.raises(StateChanged, match="again: batch 1 is unfinished"):
        derive(chained, "copy", downstream=True)
    assert chained.versions() == before
    chained.run("orders")


def test_only_letters_whose_row_falls_under_where_are_closed_and_a_rewind_opens_them_again(orders: Bench):
    orders.land("orders", order(1), order(2, "-2.00"), order(3, "-3.00"))
    orders.run("orders")
    before = datetime.now(timezone.utc)
    orders.write("expectations/orders/orders.yml", ORDERS_RULES.replace("min_value: 0,", "min_value: -5,"))
    derive(orders, "refine", where="cents < -250")
    assert cents(orders) == [(1, 100), (3, -300)]
    assert statuses(orders) == {2: "open", 3: "replayed"}
    suite = orders.suite()
    rewind.execute(suite, ["orders"], before.isoformat())
    assert cents(orders) == [(1, 100)]
    assert statuses(orders) == {2: "open", 3: "open"}
    assert audited(orders) == 0


def statuses(bench: Bench) -> dict[int, str]:
    letters = bench.quarantine("orders").collect()
    return {json.loads(letter.payload)["order_id"]: letter.status for letter in letters}


STEPS = ("letters copy", "target again", "checkpoint again")


@pytest.mark.parametrize("step", STEPS)
def test_a_backfill_that_is_killed_is_finished_by_the_same_command_and_nothing_runs_before(chained: Bench, step: str):
    doubled(chained)
    with pytest.raises(Killed):
        derive(chained, "copy", downstream=True, crash_at=step)
    with pytest.raises(StateChanged, match=r"finish it first: microbatch backfill orders --flow copy"):
        chained.run("orders")
    derive(chained, "copy", downstream=True)
    for table in ("silver.copy", "gold.copy"):
        assert values(chained, table) == [200, 600], table
    assert values(chained, "gold.total") == [801]
    letters = [letter for letter in chained.quarantine("orders").collect() if letter.flow == "copy"]
    assert sorted(letter.status for letter in letters) == ["open", "replayed"]
    assert audited(chained) == 0
    assert chained.run("orders") == []
    assert sum(run["query_id"].startswith("backfill:") for run in chained.ledger("orders")) == 3
