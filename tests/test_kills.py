"""Exactly once: runs that are killed where it hurts end in the tables of a twin that never was."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from microbatch.observers import Observer
from microbatch.outcome import Outcome
from microbatch.runner import run
from microbatch.sink import small
from microbatch.testing import Bench, Step
from tests import soak
from tests.landing import Landing
from tests.orders import order

pytestmark = pytest.mark.slow  # whole runs of the engine, or processes of their own

FLOWS = ("take_shops", "take_orders", "follow_customers", "refine", "total")
CRASHES: tuple[Step, ...] = ("letters", "deletes", "target", "ledger", "commit")
# A step, and its how manyth time in a run is the last: each flow has its batches.
KILLS = (("target", 2), ("letters", 1), ("ledger", 3), ("keep", 4))


@dataclass
class Shop:
    """The suite that is soaked, run in this process."""

    bench: Bench
    files: soak.Shop

    def counts(self) -> list[dict[str, Any]]:
        """What the ledger says, but for times and ids."""
        keep = ("flow", "batch_id", "target_version")
        rows = [{k: v for k, v in b.items() if k in keep or k.startswith("rows_")} for b in self.bench.ledger("shop")]
        return sorted(rows, key=lambda row: (row["flow"], row["batch_id"]))


@pytest.fixture
def shops(spark: SparkSession, tmp_path: Path) -> tuple[Shop, Shop]:
    """Two suites with all four targets: one that crashes, and its twin."""
    made = []
    for name in ("crashed", "twin"):
        files = soak.Shop(tmp_path / name)
        made.append(Shop(Bench(spark, files.root, files.root / "data"), files))
    return made[0], made[1]


def test_a_job_that_is_killed_again_and_again_ends_in_the_tables_of_its_twin(spark: SparkSession, tmp_path: Path):
    """SIGKILL to Python and its JVM at named points, four runs deep, while more files land."""
    landing = Landing(random.Random(1))
    killed, twin = soak.Warm(tmp_path / "killed"), soak.Warm(tmp_path / "twin")
    files = landing.shops()
    for step, count in KILLS:
        files |= landing.round()
        killed.land(files)
        twin.land(files)
        files = {}
        assert killed.killed_at(step, count), f"{step} was not reached {count} times"
    killed.run()
    killed.audit()
    twin.run()
    assert killed.differences(twin) == []
    assert killed.unlawful() == twin.unlawful() == []
    assert sum(killed.rows("bronze.orders").values()) > 100


def test_kills_at_random_moments_lose_and_double_nothing(spark: SparkSession, tmp_path: Path):
    """The soak's short form; its seed is in what it raises, and `python -m tests.soak --kills 6 --seed N` has it again."""
    killed, twin = soak.Warm(tmp_path / "killed", measured=True), soak.Warm(tmp_path / "twin")
    soak.soak(killed, twin, kills=6, seed=random.SystemRandom().randrange(10**6))


@pytest.mark.parametrize(("first", "most_rows"), [(1, small.MOST_ROWS), (3, -1)], ids=["by delta-rs", "by Spark"])
def test_a_crash_in_every_flow_neither_loses_nor_repeats_a_row(
    shops: tuple[Shop, Shop], monkeypatch: pytest.MonkeyPatch, first: int, most_rows: int
):
    """All four targets, deletions among the rows; the second time while a table grows by a column.

    Each flow crashes before another step than the one before it: two rounds of two tests are every step of every flow.
    """
    monkeypatch.setattr(small, "MOST_ROWS", most_rows)
    crashed, twin = shops
    landing = Landing(random.Random(2))
    files = landing.shops()
    for turn, grown in enumerate((False, True), first):
        files |= landing.round()
        for each in shops:
            each.files.grow(grown)
            each.files.land(files)
        files = {}
        for number, flow in enumerate(FLOWS):
            if flow == "take_shops" and grown:
                continue  # the dimension comes once
            before: Step = CRASHES[(number + turn) % len(CRASHES)]
            crashed.bench.crash("shop", before=before, flows=[flow])
            crashed.bench.run("shop", flows=[flow])
        twin.bench.run("shop")
    assert crashed.files.differences(twin.files) == []
    assert crashed.counts() == twin.counts()
    crashed.files.audit()


def test_an_upsert_that_crashed_before_its_ledger_has_the_counts_of_its_first_attempt(orders: Bench):
    """Counted again, every row of a batch that is in its table already would be superseded."""
    orders.land("orders", order(1, "5.00", 2), order(1, "4.00", 1), order(2, "-1.00"), order(3), "{broken")
    orders.run("orders", flows=["ingest"])
    orders.crash("orders", before="ledger", flows=["refine"])
    assert [batch["flow"] for batch in orders.ledger("orders")] == ["ingest"]
    orders.run("orders")
    (refine,) = [batch for batch in orders.ledger("orders") if batch["flow"] == "refine"]
    counts = {name: refine[f"rows_{name}"] for name in ("read", "written", "inserted", "quarantined", "superseded")}
    assert counts == {"read": 4, "written": 2, "inserted": 2, "quarantined": 1, "superseded": 1}


@pytest.mark.parametrize(
    ("before", "in_the_table", "letters", "written"), [("target", [1, 2], 0, 2), ("ledger", [1], 1, 1)]
)
def test_a_dimension_that_changes_after_a_crash_counts_only_where_the_table_was_not_written(
    shops: tuple[Shop, Shop], before: Step, in_the_table: list[int], letters: int, written: int
):
    """A bad row turned good is in its table and in no letter; or in its letter and not in its table; never in both."""
    bench = shops[0].bench
    at = {"amount": "1.00", "status": "open", "day": "2024-01-01"}
    bench.land("shops", {"shop": 1, "region": "north"})
    bench.land(
        "orders",
        {"order_id": 1, "shop": 1, **at, "at": "2024-01-01T00:00:01Z"},
        {"order_id": 2, "shop": 2, **at, "at": "2024-01-01T00:00:02Z"},
    )
    bench.run("shop", flows=["take_shops", "take_orders"])
    bench.crash("shop", before=before, flows=["refine"])
    assert bench.quarantine("shop").count() == 1
    bench.land("shops", {"shop": 2, "region": "south"})
    bench.run("shop", flows=["take_shops"])
    bench.run("shop", flows=["refine"])
    assert sorted(row.order_id for row in bench.read("silver.orders").collect()) == in_the_table
    assert bench.quarantine("shop").count() == letters
    (refine,) = [batch for batch in bench.ledger("shop") if batch["flow"] == "refine"]
    assert (refine["rows_written"], refine["rows_quarantined"]) == (written, letters)


class Timed(Observer):
    """How long each flow took from its start to the end of its batch [s]."""

    def __init__(self) -> None:
        self.since, self.took = 0.0, dict[str, float]()

    def flow_begins(self, job: str, flow: str, pending: int) -> None:
        self.since = time.monotonic()

    def batch_ends(self, outcome: Outcome, pending: int) -> None:
        self.took[outcome.flow] = time.monotonic() - self.since


def test_a_batch_that_is_asked_for_again_changes_no_row_and_adds_no_version(shops: tuple[Shop, Shop]):
    bench, files = shops[0].bench, shops[0].files
    landing = Landing(random.Random(3))
    files.land(landing.shops() | landing.round())
    outcomes = bench.run("shop")
    last = {outcome.flow: outcome for outcome in outcomes}
    before, rows, letters = bench.versions(), [files.rows(name) for name in soak.TABLES], files.letters()
    for flow, outcome in last.items():
        folder = bench.checkpoint("shop", flow) / "commits"
        (folder / str(outcome.batch_id)).unlink()
        (folder / f".{outcome.batch_id}.crc").unlink(missing_ok=True)
    timed = Timed()
    report = run(bench.suite(), ["shop"], observer=timed)
    assert (report.exit_code, [outcome.flow for outcome in report.outcomes]) == (0, list(last))
    timeless = [replace(outcome, duration_ms=0) for outcome in last.values()]
    assert [replace(outcome, duration_ms=0) for outcome in report.outcomes] == timeless
    assert {**bench.versions(), "ops.runs": 0} == {**before, "ops.runs": 0}
    assert ([files.rows(name) for name in soak.TABLES], files.letters()) == (rows, letters)
    for flow, took in timed.took.items():
        print(f"{flow}: {last[flow].duration_ms} ms the first time, {took * 1000:.0f} ms with its query the second")


def test_without_the_keys_of_its_commits_an_append_doubles_after_a_crash(tmp_path: Path):
    """The mutant: what the other tests hold would not hold by itself."""
    script = tmp_path / "mutant.py"  # a file: under `python -c` PySpark ends the process where grpc is missing
    script.write_text(MUTANT)
    environment = {**os.environ, "PYTHONPATH": str(soak.HERE)}
    words = [sys.executable, str(script), str(tmp_path)]
    ended = subprocess.run(words, cwd=soak.HERE, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    twice = {key: [2, 2, 2] for key in ("unkeyed", "unkeyed, by Spark")}
    assert json.loads(ended.stdout.splitlines()[-1]) == {"keyed": [1, 1, 1], **twice}


MUTANT = """
import json, sys
from contextlib import contextmanager
from pathlib import Path

from deltalake import CommitProperties

from microbatch import session
from microbatch.sink import small, targets
from microbatch.testing import Bench
from tests import orders

true = targets.keyed


@contextmanager
def without_transactions(spark, commit):
    with true(spark, commit):
        for name in (targets.TXN_APP, targets.TXN_VERSION):
            spark.conf.unset(name)
        yield


def without_transaction(commit):
    return CommitProperties(custom_metadata={"userMetadata": commit.metadata})


found = {}
spark = session.start("mutant", {"spark.master": "local[1]", "spark.sql.shuffle.partitions": "1"})
for name in ("keyed", "unkeyed", "unkeyed, by Spark"):
    if name != "keyed":
        targets.keyed, small._said = without_transactions, without_transaction
    if name == "unkeyed, by Spark":
        small.MOST_ROWS = -1
    bench = Bench(spark, Path(sys.argv[1]), Path(sys.argv[1]) / name)
    bench.write("jobs/orders.py", orders.ORDERS_JOB)
    bench.write("transforms/orders.py", orders.ORDERS_TRANSFORM)
    bench.write("expectations/orders/orders.yml", orders.ORDERS_RULES)
    bench.write("conf/base/orders.yml", orders.ORDERS_CONF)
    bench.land("orders", *[orders.order(number) for number in (1, 2, 3)])
    bench.crash("orders", before="ledger", flows=["ingest"])
    bench.run("orders", flows=["ingest"])
    ids = [row.order_id for row in bench.read("bronze.orders").collect()]
    found[name] = [ids.count(number) for number in (1, 2, 3)]
print(json.dumps(found))
"""
