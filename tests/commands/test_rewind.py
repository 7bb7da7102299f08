"""Rewind: tables, checkpoints, quarantine and ledger go back together, and the next run takes it from there."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from microbatch.commands import audit, rewind
from microbatch.commands.quarantine import Letters
from microbatch.commands.replay import replay
from microbatch.errors import ConfigError, StateChanged
from microbatch.runner.metrics import Metrics
from microbatch.sink import ops, small
from microbatch.testing import Bench
from tests.orders import ORDERS_JOB, order

pytestmark = pytest.mark.slow

TOTALS = """
    Flow("total", reads="silver.orders", recompute_by=["day"], transform=orders.totals,
         writes=Replace("gold.totals", keys=["day"])),
)
"""
TRANSFORM = '''
"""Orders."""

from pyspark.sql import functions as F


def refine(orders):
    """Add the day."""
    return orders.withColumn("day", F.to_date("updated_at"))


def totals(orders):
    """Sum the amounts of each day."""
    return orders.groupBy("day").agg(F.sum("amount").alias("amount"), F.count("*").alias("orders"))
'''
COPY = """
from microbatch import Append, Flow, Job

JOB = Job(Flow("copy", reads="bronze.orders", writes=Append("silver.copy")))
"""
SLOT_JOB = """
from microbatch import Flow, Job, Source, Upsert

ORDERS = Source("orders", schema="id BIGINT")
JOB = Job(Flow("follow", reads=ORDERS, writes=Upsert("silver.orders", keys=["id"], delete_when="_op = 'delete'")))
"""
SLOT_CONF = """
sources:
  orders: {kind: postgres, connection: shop, table: public.orders, mode: changes}
"""
TABLES = ("bronze.orders", "silver.orders", "gold.totals")


@pytest.fixture
def shop(orders: Bench) -> Bench:
    """Three flows: append, upsert, recompute."""
    job = ORDERS_JOB.replace("import Append,", "import Append, Replace,").rstrip().removesuffix(")") + TOTALS
    orders.write("jobs/orders.py", job)
    orders.write("transforms/orders.py", TRANSFORM)
    return orders


def contents(bench: Bench) -> dict[str, list[str]]:
    return {table: sorted(map(str, bench.read(table).collect())) for table in TABLES}


def letters(bench: Bench) -> list[tuple[str, str]]:
    return sorted((row.payload, row.status) for row in bench.quarantine("orders").collect())


def ledger(bench: Bench) -> list[tuple[str, int, int, int]]:
    return [(b["flow"], b["batch_id"], b["rows_read"], b["rows_written"]) for b in bench.ledger("orders")]


def audited(bench: Bench) -> int:
    suite = bench.suite()
    return audit.execute(suite, suite.job("orders"))


def back(bench: Bench, to: datetime | None, *jobs: str, crash_at: str = "") -> int:
    def reached(step: str) -> None:
        if crash_at and step.startswith(crash_at):
            raise KeyboardInterrupt(step)

    return rewind.execute(bench.suite(), jobs or ("orders",), to.isoformat() if to else None, reached)


def now() -> datetime:
    return datetime.now(timezone.utc)


def test_after_a_rewind_the_metrics_of_the_last_run_are_those_of_the_last_one_that_remains(orders: Bench):
    def last_run() -> dict[str, float]:
        samples = [sample for family in Metrics(orders.suite(), {}).collect() for sample in family.samples]
        return {sample.name: sample.value for sample in samples if sample.name.startswith("microbatch_last_run_")}

    orders.land("orders", order(1))
    orders.run("orders")
    then, between = last_run(), now()
    orders.land("orders", order(2))
    orders.run("orders")
    assert last_run() != then
    assert back(orders, between) == 0
    assert last_run() == then
    assert then["microbatch_last_run_success"] == 1


def test_a_letter_of_a_group_is_replaced_when_the_group_is_made_anew_and_is_back_when_that_is_undone(shop: Bench):
    job = (
        (shop.root / "jobs/orders.py")
        .read_text()
        .replace("transform=orders.totals,", 'transform=orders.totals, expects="totals",')
    )
    shop.write("jobs/orders.py", job)
    rule = "{type: expect_column_values_to_be_between, kwargs: {column: orders, max_value: 2}, severity: critical}"
    shop.write("expectations/orders/totals.yml", f"name: totals\nexpectations:\n  - {rule}\n")
    shop.land("orders", *[order(number) for number in range(3)])
    shop.land("orders", order(10) | {"updated_at": "2031-01-01T00:00:00Z"}, order(11) | {"updated_at": None})
    shop.land("orders", *[order(number) | {"updated_at": None} for number in range(20, 23)])
    shop.run("orders")
    then, between = letters(shop), now()
    assert [status for _, status in then] == ["open", "open"]
    shop.land("orders", order(4))
    shop.run("orders")
    held = [(json.loads(payload)["orders"], status) for payload, status in letters(shop)]
    assert sorted(held) == [(3, "replayed"), (4, "open"), (4, "open")]
    assert audited(shop) == 0
    assert back(shop, between) == 0
    assert letters(shop) == then


def test_everything_goes_back_to_the_end_of_a_run_and_the_next_run_takes_in_again_what_came_since(shop: Bench):
    shop.land("orders", order(1, "1.00"), order(2, "-2.00"), order(3, "3.00"))
    shop.run("orders")
    then, letters_then, ledger_then, between = contents(shop), letters(shop), ledger(shop), now()
    shop.land("orders", order(1, "9.00", minute=5), order(4, "4.00"), order(5, "-5.00"))
    shop.run("orders")
    shop.land("orders", order(6, "6.00"))
    shop.run("orders")
    after, letters_after = contents(shop), letters(shop)

    assert back(shop, between) == 0
    assert (contents(shop), letters(shop), ledger(shop)) == (then, letters_then, ledger_then)
    assert audited(shop) == 0

    shop.run("orders")
    assert (contents(shop), letters(shop)) == (after, letters_after)
    assert audited(shop) == 0
    assert not shop.run("orders")


def test_a_rewind_that_is_killed_again_and_again_is_finished_by_the_same_command_and_nothing_runs_in_between(
    shop: Bench,
):
    shop.land("orders", order(1, "1.00"), order(2, "-2.00"))
    shop.run("orders")
    then, between = contents(shop), now()
    shop.land("orders", order(1, "9.00", minute=5), order(3, "-3.00"))
    shop.run("orders")
    after = contents(shop)
    for step in ("plan", "table silver.orders", "checkpoint orders.refine", "letters", "ledger"):
        with pytest.raises(KeyboardInterrupt):
            back(shop, between, crash_at=step)
        with pytest.raises(StateChanged, match="microbatch rewind orders"):
            shop.run("orders")
    back(shop, None)
    assert contents(shop) == then
    shop.run("orders")
    assert contents(shop) == after
    assert audited(shop) == 0


def test_it_goes_back_twice_and_behind_what_spark_keeps_of_a_checkpoint(shop: Bench, monkeypatch: pytest.MonkeyPatch):
    """The first time as where delta-rs does not write: by Spark's RESTORE."""
    points, states = [], []
    for number in range(4):
        shop.land("orders", order(number, f"{number + 1}.00"), order(0, f"{number + 5}.00", minute=number))
        shop.run("orders")
        points.append(now())
        states.append(contents(shop))
    for flow in ("ingest", "refine", "total"):  # as Spark does with all but the last hundred batches
        checkpoint = shop.checkpoint("orders", flow)
        for number in (0, 1):
            (checkpoint / "offsets" / str(number)).unlink()
            (checkpoint / "commits" / str(number)).unlink()
    with monkeypatch.context() as by_spark:
        by_spark.setattr(small, "restore", lambda table, version, metadata: False)
        back(shop, points[2])
    assert contents(shop) == states[2]
    back(shop, points[1])
    assert contents(shop) == states[1]
    shop.run("orders")
    assert contents(shop) == states[3]
    assert audited(shop) == 0
    back(shop, points[0])
    assert contents(shop) == states[0]
    shop.run("orders")
    assert contents(shop) == states[3]


def test_letters_that_were_replayed_since_are_open_again(shop: Bench):
    shop.land("orders", order(1, "1.00"), order(2, "-2.00"))
    shop.run("orders")
    then, between = contents(shop), now()
    shop.write(
        "expectations/orders/orders.yml",
        "name: orders\nexpectations:\n  - type: expect_column_values_to_not_be_null\n    kwargs: {column: amount}\n",
    )
    suite = shop.suite()
    replay(Letters(suite, suite.job("orders"), None, None, None))
    assert [status for _, status in letters(shop)] == ["replayed"]
    back(shop, between)
    assert contents(shop) == {**then, "gold.totals": then["gold.totals"]}
    assert [status for _, status in letters(shop)] == ["open"]
    suite = shop.suite()
    replay(Letters(suite, suite.job("orders"), None, None, None))
    assert [status for _, status in letters(shop)] == ["replayed"]
    assert audited(shop) == 0


def test_what_is_needed_to_go_back_and_is_not_there_stops_it_before_anything_is_touched(shop: Bench):
    shop.land("orders", order(1))
    shop.run("orders")
    between = now()
    landed = shop.land("orders", order(2))
    shop.run("orders")
    before = contents(shop)
    with pytest.raises(ConfigError, match="no run of orders had ended well by 2001"):
        back(shop, datetime(2001, 1, 1, tzinfo=timezone.utc))
    with pytest.raises(ConfigError, match="yesterday is not a time"):
        rewind.execute(shop.suite(), ("orders",), "yesterday")
    content = landed.read_text()
    landed.unlink()
    with pytest.raises(StateChanged, match=landed.name):
        back(shop, between)
    landed.write_text(content)
    shop.write("jobs/copy.py", COPY)
    with pytest.raises(ConfigError, match="jobs/copy.py: reads bronze.orders"):
        back(shop, between)
    assert contents(shop) == before
    assert not Path(shop.storage["checkpoints"], "orders", "rewind.json").exists()


def test_jobs_that_read_each_other_go_back_to_a_point_where_each_had_read_all_of_the_other(shop: Bench):
    shop.write("jobs/copy.py", COPY)
    shop.land("orders", order(1))
    shop.run("orders")
    shop.run("copy")
    then, copied = contents(shop), sorted(map(str, shop.read("silver.copy").collect()))
    shop.land("orders", order(2))
    shop.run("orders")
    between = now()
    shop.run("copy")
    back(shop, between, "orders", "copy")
    assert contents(shop) == then
    assert sorted(map(str, shop.read("silver.copy").collect())) == copied
    shop.run("orders", "copy")
    assert shop.read("silver.copy").count() == 2


def test_a_checkpoint_put_back_from_before_a_rewind_is_seen(shop: Bench):
    import shutil

    shop.land("orders", order(1))
    shop.run("orders")
    between = now()
    shop.land("orders", order(2))
    shop.run("orders")
    checkpoint = shop.checkpoint("orders", "ingest")
    shutil.copytree(checkpoint, checkpoint.with_name("kept"))
    back(shop, between)
    shutil.rmtree(checkpoint)
    checkpoint.with_name("kept").rename(checkpoint)
    with pytest.raises(StateChanged):
        shop.run("orders")


def test_a_batch_that_had_begun_at_that_time_stays_with_the_letters_it_wrote_later(orders: Bench):
    """Jobs that run side by side: when a run of one ends, a batch of another may be half-way."""
    orders.land("orders", order(1), order(2, "-2.00"))
    orders.run("orders")
    begun = max(batch["started_at"] for batch in orders.ledger("orders") if batch["flow"] == "refine")
    ended = {"job": "orders", "run_id": "beside", "started_at": begun, "finished_at": begun, "status": "done"}
    ops.append(orders.storage["warehouse"], "runs", [ended])
    before = letters(orders)
    back(orders, begun)
    assert letters(orders) == before
    assert ledger(orders) == [("ingest", 0, 2, 2), ("refine", 0, 2, 1)]
    assert audited(orders) == 0
    orders.run("orders")
    assert audited(orders) == 0


def test_the_rewind_is_told_in_the_runs(shop: Bench):
    shop.land("orders", order(1))
    shop.run("orders")
    between = now() + timedelta(milliseconds=1)
    shop.land("orders", order(2))
    shop.run("orders")
    back(shop, between)
    runs = ops.rows(shop.storage["warehouse"], "runs", [("job", "=", "orders")])
    assert sorted(run["status"] for run in runs) == ["done", "rewound"]
    back(shop, now())
    assert json.loads((shop.checkpoint("orders", "ingest") / "metadata").read_text())["id"]


def test_a_source_that_tells_its_changes_once_stops_it_before_anything_is_touched(bench: Bench):
    bench.write("jobs/orders.py", SLOT_JOB)
    bench.write("conf/base/orders.yml", SLOT_CONF)
    bench.write("conf/base/environment.yml", "connections: {shop: {uri: 'postgresql://shop@127.0.0.1:1/shop'}}")
    warehouse, first = bench.storage["warehouse"], now()
    run = {"job": "orders", "run_id": "r", "started_at": first, "finished_at": first, "status": "done", "exit_code": 0}
    ops.append(warehouse, "runs", [run])
    counts = dict.fromkeys((name for name in ops.TABLES["batches"] if name.startswith("rows_")), 0)
    later = {"job": "orders", "flow": "follow", "query_id": "q", "batch_id": 1, "started_at": now(), **counts}
    ops.append(warehouse, "batches", [later])
    with pytest.raises(StateChanged, match="a slot that has moved on does not tell again"):
        back(bench, now())
