"""`audit` over a warehouse that somebody changed by hand: each change is named, and what belongs to upkeep is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from microbatch.commands import audit
from microbatch.sink.tables import Table
from microbatch.testing import Bench
from tests import orders as suite
from tests.orders import order

pytestmark = pytest.mark.slow  # whole runs of the engine, or processes of their own


def anew(spark: SparkSession, folder: Path) -> Bench:
    """The suite, before its first run."""
    bench = Bench(spark, folder, folder)
    bench.write("jobs/orders.py", suite.ORDERS_JOB)
    bench.write("transforms/orders.py", suite.ORDERS_TRANSFORM)
    bench.write("expectations/orders/orders.yml", suite.ORDERS_RULES)
    bench.write("conf/base/orders.yml", suite.ORDERS_CONF)
    return bench


@pytest.fixture(scope="module")
def made(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two batches in each of two flows: rows written, replaced, quarantined, superseded, and one that did not parse."""
    folder = tmp_path_factory.mktemp("audited")
    bench = anew(spark, folder)
    bench.land("orders", order(1, "5.00", 1), order(1, "6.00", 2), order(2, "-1.00"), order(3), "{broken")
    bench.run("orders")
    bench.land("orders", order(1, "7.00", 3), order(4), order(5, "-1.00"))
    bench.run("orders")
    return folder


@pytest.fixture
def bench(spark: SparkSession, made: Path, tmp_path: Path) -> Bench:
    """A copy of that warehouse, to be damaged."""
    copy = shutil.copytree(made, tmp_path / "copy")
    bench = Bench(spark, copy, copy)
    bench.root = copy / "suite"
    return bench


def table(bench: Bench, name: str) -> DeltaTable:
    return Table(bench.storage["warehouse"], name).open()


def audited(bench: Bench) -> int:
    loaded = bench.suite()
    return audit.execute(loaded, loaded.job("orders"))


def doubled(bench: Bench, name: str, where: str) -> None:
    """Append a copy of the rows it is true for."""
    from deltalake import QueryBuilder

    stored = table(bench, name)
    rows = QueryBuilder().register("t", stored).execute(f"SELECT * FROM t WHERE {where}").read_all()
    write_deltalake(stored, rows, mode="append")


def compacted(bench: Bench) -> None:
    for name in ("bronze.orders", "silver.orders", "ops.batches", "ops.quarantine"):
        table(bench, name).optimize.compact()
        table(bench, name).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
        table(bench, name).alter.set_table_properties({"delta.logRetentionDuration": "interval 60 days"})


def test_what_the_engine_left_is_proved(bench: Bench, capsys: pytest.CaptureFixture[str]):
    assert audited(bench) == 0
    out = capsys.readouterr().out
    assert "FAILED" not in out
    assert "orders: every row is accounted for (15 rows read in all)" in out


def test_upkeep_of_tables_moves_no_row_and_is_no_finding(bench: Bench, capsys: pytest.CaptureFixture[str]):
    compacted(bench)
    assert audited(bench) == 0
    assert "FAILED" not in capsys.readouterr().out


def test_of_a_batch_that_is_planned_and_not_done_nothing_is_expected_yet(spark: SparkSession, tmp_path: Path):
    bench = anew(spark, tmp_path)
    for flow in ("ingest", "refine"):
        bench.land("orders", order(1, "5.00", 1), order(2), name=flow)
        bench.run("orders")
        bench.land("orders", order(3), name=f"{flow} again")
        bench.run("orders", flows=["ingest"] if flow == "refine" else ["refine"])
        bench.crash("orders", before="letters", flows=[flow])
        assert audited(bench) == 0
    bench.run("orders")
    assert audited(bench) == 0


DAMAGES: dict[str, tuple[Callable[[Bench], object], tuple[str, ...]]] = {
    "a row deleted from a target": (
        lambda bench: table(bench, "silver.orders").delete("order_id = 3"),
        ("refine: version 2 of silver.orders (DELETE) is not a commit", "refine: inserted - deleted 3 <> 2 rows in"),
    ),
    "a row of an append doubled": (
        lambda bench: doubled(bench, "bronze.orders", "order_id = 3"),
        ("ingest: version 2 of bronze.orders (WRITE) is not a commit", "ingest: inserted - deleted 7 <> 8 rows in"),
    ),
    "a row of an upsert doubled": (
        lambda bench: doubled(bench, "silver.orders", "order_id = 1"),
        ("refine: version 2 of silver.orders (WRITE) is not a commit", "refine: inserted - deleted 3 <> 4 rows in"),
    ),
    "a value changed": (
        lambda bench: table(bench, "silver.orders").update(updates={"cents": "0"}, predicate="order_id = 1"),
        ("refine: version 2 of silver.orders (UPDATE) is not a commit",),
    ),
    "a target emptied": (
        lambda bench: table(bench, "silver.orders").delete(),
        ("refine: version 2 of silver.orders (DELETE) is not a commit", "refine: inserted - deleted 3 <> 0 rows in"),
    ),
    "a target restored": (
        lambda bench: table(bench, "silver.orders").restore(0),
        ("refine: version 2 of silver.orders (RESTORE) is not a commit", "refine: inserted - deleted 3 <> 2 rows in"),
    ),
    "a target dropped": (
        lambda bench: shutil.rmtree(table(bench, "silver.orders").table_uri.removeprefix("file://")),
        ("refine: written 4 <> 0 rows in silver.orders, which is not there",),
    ),
    "the letter of a row dropped": (
        lambda bench: table(bench, "ops.quarantine").delete("kind = 'row' AND batch_id = 0"),
        ("refine: quarantined 2 <> 1 letters of kind row",),
    ),
    "the letter of a text dropped": (
        lambda bench: table(bench, "ops.quarantine").delete("kind = 'parse'"),
        ("ingest: unparsed 1 <> 0 letters of kind parse",),
    ),
    "a letter doubled": (
        lambda bench: doubled(bench, "ops.quarantine", "kind = 'parse'"),
        ("ingest: unparsed 1 <> 2 letters of kind parse",),
    ),
    "a ledger row dropped": (
        lambda bench: table(bench, "ops.batches").delete("flow = 'refine' AND batch_id = 1"),
        (
            "refine: commits of silver.orders 2 <> 1 that are in the ledger",
            "refine: read 4 <> 7 rows that ingest changed",
        ),
    ),
    "a ledger row doubled": (
        lambda bench: doubled(bench, "ops.batches", "flow = 'ingest' AND batch_id = 1"),
        (
            "ingest: batches in the ledger 3 <> 2 batches of files recorded",
            "ingest: inserted - deleted 10 <> 7 rows in",
        ),
    ),
    "a count of the ledger changed": (
        lambda bench: table(bench, "ops.batches").update(
            updates={"rows_written": "rows_written + 1"}, predicate="flow = 'ingest' AND batch_id = 0"
        ),
        ("ingest: transformed 7 <> 8 written",),
    ),
    "the whole ledger dropped": (
        lambda bench: shutil.rmtree(table(bench, "ops.batches").table_uri.removeprefix("file://")),
        ("ingest: commits of bronze.orders 2 <> 0 that are in the ledger", "ingest: unparsed 0 <> 1 letters of kind"),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_changed_by_hand_is_named(bench: Bench, capsys: pytest.CaptureFixture[str], damage: str):
    change, words = DAMAGES[damage]
    change(bench)
    assert audited(bench) == 1
    out = capsys.readouterr().out
    failed = [line for line in out.splitlines() if line.startswith("FAILED")]
    for said in words:
        assert any(said in line for line in failed), out
    assert "orders: NOT every row is accounted for" in out


@pytest.mark.parametrize(
    "damage", ["a row deleted from a target", "the letter of a row dropped", "a ledger row dropped"]
)
def test_a_change_is_still_named_after_upkeep_moved_the_files(
    bench: Bench, capsys: pytest.CaptureFixture[str], damage: str
):
    change, words = DAMAGES[damage]
    change(bench)
    compacted(bench)
    assert audited(bench) == 1
    out = capsys.readouterr().out
    assert all(said in out for said in words), out
