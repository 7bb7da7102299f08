"""One commit a batch, keyed: the same key twice changes nothing, and the newest version of a row wins."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from microbatch.job import Append, Replace, Upsert
from microbatch.outcome import ONLY_THE_COMMIT_KNOWS, Outcome
from microbatch.sink import deletes, targets
from microbatch.sink.tables import Table, outcome_of

Rows = Callable[..., DataFrame]
SCHEMA = "id BIGINT, name STRING, at BIGINT"


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(str(tmp_path), "silver.t")


def commit(batch_id: int = 0, bounds: dict[str, tuple[Any, Any]] | None = None, **outcome: int) -> targets.Commit:
    counts = dict.fromkeys([name for name in Outcome.__dataclass_fields__ if name.startswith("rows_")], 0) | outcome
    texts = dict.fromkeys(("job", "flow", "run_id", "started_at", "source_start", "source_end", "suite_version"), "x")
    said = Outcome(
        **texts, query_id="q", batch_id=batch_id, duration_ms=1, target_version=None, newest_at=None, **counts
    )
    return targets.Commit("q", batch_id, said.to_json(), bounds or {}, {})


def stored(spark: SparkSession, table: Table) -> list[tuple]:
    return sorted((tuple(row) for row in spark.read.format("delta").load(table.path).collect()), key=str)


def last(table: Table) -> Outcome:
    found = outcome_of(next(table.commits(1)))
    assert found is not None
    return found


TARGETS = {
    "append": Append("silver.t"),
    "upsert": Upsert("silver.t", keys="id", newest_by="at"),
    "upsert that deletes": Upsert("silver.t", keys="id", delete_when="name = 'gone'"),
    "replace": Replace("silver.t", keys="id"),
    "clustered append": Append("silver.t", cluster_by="id"),
    "partitioned upsert": Upsert("silver.t", keys="id", partition_by="name"),
}


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_the_same_key_twice_changes_nothing(spark: SparkSession, rows: Rows, table: Table, target: Any):
    first, second = rows(SCHEMA, (1, "a", 1), (2, "b", 1)), rows(SCHEMA, (2, "c", 2), (3, "d", 2), (4, "gone", 2))
    for number, batch in enumerate((first, second)):
        groups = batch.select("id").distinct() if isinstance(target, Replace) else None
        targets.write(target, table, batch, commit(number), groups)
        before, version = stored(spark, table), table.version()
        targets.write(target, table, rows(SCHEMA, (9, "again", 9), (2, "again", 9)), commit(number), groups)
        assert (stored(spark, table), table.version()) == (before, version)
    assert table.last_batch("q") == 1
    assert [spark.conf.get(name, None) for name in (targets.TXN_APP, targets.TXN_VERSION, targets.USER_METADATA)] == [
        None
    ] * 3
    kept = {row[0]: row[1] for row in before}
    assert kept == {1: "a", 2: "c", 3: "d"} | (
        {} if target.table and getattr(target, "delete_when", None) else {4: "gone"}
    )


def test_a_failed_write_leaves_no_key_behind_for_the_next_write(spark: SparkSession, rows: Rows, table: Table):
    targets.write(Append("silver.t"), table, rows(SCHEMA, (1, "a", 1)), commit(0))
    with pytest.raises(Exception, match="(?i)mismatch|METADATA"):
        targets.write(Append("silver.t"), table, rows("id BIGINT, other STRING", (2, "b")), commit(1))
    assert spark.conf.get(targets.TXN_APP, None) is None
    rows(SCHEMA, (2, "b", 1)).write.format("delta").mode("append").save(table.path)
    assert len(stored(spark, table)) == 2


@pytest.mark.parametrize("newest_by", [("at",), ("at", "name"), ()])
def test_a_tie_is_broken_by_the_rows_themselves_and_not_by_their_order(rows: Rows, newest_by: tuple[str, ...]):
    target = Upsert("silver.t", keys="id", newest_by=newest_by)
    versions = [(1, name, 5) for name in "abcdefgh"] + [(2, None, 5), (2, "x", 5), (2, "x", None)]
    winners = set()
    for order in (versions, versions[::-1], versions[3:] + versions[:3]):
        for parts in (1, 3):
            found = targets.newest(rows(SCHEMA, *order).repartition(parts), target).collect()
            winners.add(tuple(sorted((row.id, row.name, row.at) for row in found)))
    assert len(winners) == 1
    if newest_by == ("at", "name"):
        assert winners == {((1, "h", 5), (2, "x", 5))}


def test_on_a_tie_between_a_version_and_a_delete_the_version_stays(rows: Rows):
    """The changes of a table that was rewritten group by group hold both for one key, at one time."""
    target = Upsert("silver.t", keys="id", newest_by="at", delete_when="name = 'delete'")
    versions = [(number, name, 5) for number in range(20) for name in ("delete", "insert")]
    assert {row.name for row in targets.newest(rows(SCHEMA, *versions), target).collect()} == {"insert"}


def test_rows_with_a_map_and_a_variant_have_an_order_of_their_own(rows: Rows):
    for target in (Upsert("silver.t", keys="id", newest_by="at"), Upsert("silver.t", keys="id")):
        winners = set()
        for texts in (('{"a": 1}', '{"b": 2}'), ('{"b": 2}', '{"a": 1}')):
            versions = rows(SCHEMA, *[(1, text, 5) for text in texts]).selectExpr(
                "id", "at", "parse_json(name) AS any", "from_json(name, 'map<string, int>') AS map"
            )
            winners.add(str(targets.newest(versions, target).selectExpr("to_json(any)", "map").collect()))
        assert len(winners) == 1


@pytest.mark.slow
def test_columns_may_be_called_as_anything_that_is_not_the_engines(spark: SparkSession, rows: Rows, table: Table):
    schema = "id BIGINT, at BIGINT, _deleted STRING, _group STRING, _place BIGINT, _order STRING, _as_of STRING"
    upsert, replace = (
        Upsert("silver.t", keys="id", newest_by="at", delete_when="_place = 0"),
        Replace("silver.t", keys="id"),
    )
    for number in range(2):
        versions = rows(schema, *[(n, number, "d", "g", 7, "o", "a") for n in range(2)])
        targets.write(upsert, table, versions, commit(number))
    targets.write(replace, table, rows(schema, (1, 2, "d", "h", 8, "o", "a")), commit(2), rows("id BIGINT", (1,)))
    assert stored(spark, table) == [(0, 1, "d", "g", 7, "o", "a"), (1, 2, "d", "h", 8, "o", "a")]


@pytest.mark.slow
def test_an_upsert_keeps_the_newest_with_null_as_the_oldest_and_counts_what_its_merge_did(
    spark: SparkSession, rows: Rows, table: Table
):
    target = Upsert("silver.t", keys="id", newest_by="at", delete_when="name = 'gone'")

    def upsert(number: int, *given: tuple) -> tuple[int, ...]:
        said = commit(number, rows_transformed=len(given), rows_written=ONLY_THE_COMMIT_KNOWS)
        targets.write(target, table, rows(SCHEMA, *given), said)
        done = last(table)
        assert done.lawful()
        assert done.target_version == table.version()
        return done.rows_inserted, done.rows_updated, done.rows_deleted, done.rows_superseded

    assert upsert(0, (1, "old", 1), (1, "new", 2), (2, "null", None), (3, "x", 3), (8, "gone", 1)) == (3, 0, 0, 2)
    assert upsert(1, (1, "late", 1), (2, "newer", 0), (3, "tie", 3), (4, "null", None)) == (1, 2, 0, 1)
    assert upsert(2, (1, "null", None), (3, "gone", 4), (4, "gone", None), (9, "gone", 1)) == (0, 0, 2, 2)
    assert upsert(3, (2, "gone", -1), (1, "gone", 1)) == (0, 0, 0, 2)
    assert stored(spark, table) == [(1, "new", 2), (2, "newer", 0)]


def test_a_deletion_is_remembered_for_thirty_days(rows: Rows, tmp_path: Path):
    target = Upsert("silver.t", keys="id", newest_by="at", delete_when="name = 'gone'")
    arrived = rows(SCHEMA, (1, "gone", 5), (2, "here", 5))
    now = datetime(2025, 3, 1, tzinfo=timezone.utc)
    batch = {"job": "j", "flow": "f", "query_id": "q", "batch_id": 0, "deleted_at": now}
    deletes.remember(str(tmp_path), target, arrived, batch)
    found = {}
    for days in (29, 31):
        later = {**batch, "batch_id": 1}
        known = deletes.known(str(tmp_path), target, arrived, now + timedelta(days=days), later)
        found[days] = [tuple(row) for row in known.select("id", "at").collect()] if known is not None else []
    assert found == {29: [(1, 5)], 31: []}


@pytest.mark.slow
def test_a_replace_rewrites_whole_groups_nulls_and_emptied_ones_included(spark: SparkSession, rows: Rows, table: Table):
    target, schema = Replace("silver.t", keys=["shop", "day"]), "shop STRING, day BIGINT, total BIGINT"

    def replace(number: int, groups: list[tuple], *given: tuple) -> None:
        said = commit(number, rows_transformed=len(given), rows_written=len(given))
        targets.write(target, table, rows(schema, *given), said, rows("shop STRING, day BIGINT", *groups))
        assert last(table).lawful()

    replace(0, [("a", 1), (None, 1), ("b", None)], ("a", 1, 1), ("a", 1, 2), (None, 1, 3), ("b", None, 4))
    replace(1, [("a", 1), (None, 1), ("c", 1)], ("a", 1, 9), ("c", 1, 7))
    assert stored(spark, table) == sorted([("a", 1, 9), ("b", None, 4), ("c", 1, 7)], key=str)
    replace(2, [("b", None), ("a", 1)])
    assert stored(spark, table) == [("c", 1, 7)]
    assert last(table).rows_deleted == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Append, Upsert])
def test_a_target_that_may_grow_takes_a_new_column_and_one_that_may_not_refuses_it(
    spark: SparkSession, rows: Rows, table: Table, kind: Any
):
    keys = {"keys": "id"} if kind is Upsert else {}
    targets.write(kind("silver.t", **keys), table, rows(SCHEMA, (1, "a", 1)), commit(0))
    wider = rows(SCHEMA + ", extra STRING", (1, "b", 2, "x"), (2, "c", 2, "y"))
    with pytest.raises(Exception, match="(?i)extra"):
        targets.write(kind("silver.t", **keys), table, wider, commit(1))
    targets.write(kind("silver.t", **keys, evolve="add_columns"), table, wider, commit(1))
    old = [(1, "a", 1, None)] if kind is Append else []
    assert stored(spark, table) == sorted([*old, (1, "b", 2, "x"), (2, "c", 2, "y")], key=str)


@pytest.mark.slow
def test_files_are_laid_out_as_declared_and_other_engines_read_them(spark: SparkSession, rows: Rows, tmp_path: Path):
    parted, clustered = Table(str(tmp_path), "silver.parted"), Table(str(tmp_path), "silver.clustered")
    batch = rows(SCHEMA, (1, "a", 1), (2, "b", 2))
    with_changes = targets.Commit("q", 0, commit(0).metadata, {}, {"delta.enableChangeDataFeed": "true"})
    targets.write(Upsert("silver.parted", keys="id", partition_by="name"), parted, batch, with_changes)
    targets.write(Upsert("silver.clustered", keys="id", cluster_by=["at", "id"]), clustered, batch, with_changes)
    for made in (parted, clustered):
        targets.write(Upsert(made.name, keys="id"), made, rows(SCHEMA, (2, "c", 3), (3, "d", 3)), commit(1))
        opened = DeltaTable(made.path)
        assert opened.metadata().configuration["delta.enableChangeDataFeed"] == "true"
        assert sorted(opened.to_pyarrow_table().column("name").to_pylist()) == ["a", "c", "d"]
        assert last(made).batch_id == 1
        if importlib.util.find_spec("duckdb") is not None:
            import duckdb

            assert duckdb.from_arrow(opened.to_pyarrow_table()).count("*").fetchall() == [(3,)]
    assert DeltaTable(parted.path).metadata().partition_columns == ["name"]
    assert DeltaTable(clustered.path).metadata().partition_columns == []
    detail = spark.sql(f"DESCRIBE DETAIL delta.`{clustered.path}`").collect()[0]
    assert detail.clusteringColumns == ["at", "id"]
    assert "deletionVectors" not in detail.tableFeatures


@pytest.mark.slow
def test_bounds_keep_a_merge_off_the_files_outside_them(spark: SparkSession, rows: Rows, table: Table):
    """The middle file is gone from the disk: a MERGE that looked into it would fail."""
    target, files = Upsert("silver.t", keys="id", newest_by="at"), []
    for number in range(3):
        part = rows(SCHEMA, *[(number * 100 + i, "a", 1) for i in range(5)]).coalesce(1)
        targets.write(Append("silver.t"), table, part, commit(number))
        files.append(set(DeltaTable(table.path).file_uris()))
    [middle] = files[1] - files[0]
    Path(middle).unlink()
    targets.write(target, table, rows(SCHEMA, (201, "b", 2), (204, "b", 2)), commit(4, {"id": (201, 204)}))
    metrics = next(table.commits(1))["operationMetrics"]
    names = ("numTargetRowsUpdated", "numTargetRowsCopied", "numTargetFilesRemoved")
    assert [int(metrics[name]) for name in names] == [2, 3, 1]
    with pytest.raises(Exception, match="(?i)does not exist|FAILED_READ_FILE"):
        targets.write(target, table, rows(SCHEMA, (101, "b", 2), (204, "b", 2)), commit(5, {"id": (101, 204)}))


@pytest.mark.slow
def test_names_and_values_that_need_quoting_go_through(spark: SparkSession, rows: Rows, table: Table):
    schema = "`a.b` STRING, `c-d` BIGINT, `é` STRING, at BIGINT"
    odd = ["it's", 'say "x"', "back\\slash", "per%cent", "new\nline", "é"]
    target, keys = Upsert("silver.t", keys=["a.b", "c-d"], newest_by="at"), "`a.b` STRING, `c-d` BIGINT"
    bounds = {"a.b": (min(odd), max(odd)), "c-d": (0, 5)}
    for number, name in enumerate("xy"):
        versions = rows(schema, *[(key, n, name, number) for n, key in enumerate(odd)])
        targets.write(target, table, versions, commit(number, bounds))
    assert stored(spark, table) == sorted([(key, n, "y", 1) for n, key in enumerate(odd)], key=str)
    replacing, groups = Replace("silver.t", keys=["a.b", "c-d"]), rows(keys, ("it's", 0))
    targets.write(replacing, table, rows(schema, ("it's", 0, "z", 3)), commit(2), groups)
    assert stored(spark, table) == sorted(
        [("it's", 0, "z", 3), *[(k, n, "y", 1) for n, k in enumerate(odd) if n]], key=str
    )


@pytest.mark.parametrize(
    "pair", [(0, 0), (3, 4999), (-7, 12), (-(2**63), 2**63 - 1), (2**63 - 2, 2**63 - 1), (10**9, 10**9 + 5)]
)
def test_bounds_of_whole_numbers_are_rounded_outwards_and_by_less_than_half_of_what_they_span(pair: tuple[int, int]):
    low, high = targets._rounded(*pair)
    assert -(2**63) <= low <= pair[0] and pair[1] <= high < 2**63
    assert (pair[0] - low) + (high - pair[1]) <= 2 * max(1, (pair[1] - pair[0]) // 2)


def test_bounds_of_batches_that_are_alike_are_the_same():
    assert len({targets._rounded(low, 4999 - low) for low in range(20)}) == 1
    assert targets._rounded("a", "b") == ("a", "b")
