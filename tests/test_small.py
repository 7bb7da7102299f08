"""A small commit by delta-rs leaves the table as Spark would have left it, and once a key; all else is left to Spark."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from chispa import assert_df_equality
from delta.tables import DeltaTable as SparksTable
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from pyspark.sql import DataFrame, SparkSession

from microbatch.errors import JobHeld, TransientError
from microbatch.job import Append, Replace, Upsert
from microbatch.retry import classify
from microbatch.sink import small, targets
from microbatch.sink.tables import Table, outcome_of
from tests.test_targets import commit

pytestmark = pytest.mark.slow
Rows = Callable[..., DataFrame]

KINDS = (
    "`a-b` BOOLEAN, tiny TINYINT, small SMALLINT, i INT, l BIGINT, d DECIMAL(15,4), text STRING, day DATE, at TIMESTAMP"
)
UTC = timezone.utc
VALUES = [
    (
        *(True, -128, 32767, -(2**31), 2**63 - 1, Decimal("99999999999.9999"), "z" * 100),
        *(date(9999, 12, 31), datetime(2024, 1, 1, 0, 0, 0, 999999, UTC)),
    ),
    (None,) * 9,
    (
        *(False, 127, -32768, 2**31 - 1, -(2**63), Decimal("-99999999999.9999"), "\N{GRINNING FACE}" * 50),
        *(date(1, 1, 1), datetime(1582, 10, 3, 0, 0, 0, 123456, UTC)),
    ),
    (
        *(False, 0, 0, 0, 0, Decimal("0.0001"), ""),
        *(date(1970, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)),
    ),
]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(str(tmp_path), "silver.t")


def made_by(table: Table) -> str:
    return str(next(table.commits(1))["engineInfo"]).partition("/")[0].partition(":")[0]


def test_every_type_is_stored_as_it_was_and_found_by_each_of_its_values(spark: SparkSession, rows: Rows, table: Table):
    given = rows(KINDS, *VALUES)
    given.limit(0).write.format("delta").save(table.path)
    for number, value in enumerate(VALUES):  # a file each, so that statistics decide which are read
        targets.write(Append("silver.t"), table, rows(KINDS, value), commit(number), few=True)
        assert made_by(table) == "delta-rs"
    stored = spark.read.format("delta").load(table.path)
    assert_df_equality(stored, given, ignore_row_order=True, ignore_nullable=True)
    conditions = []
    for name, kind in given.dtypes:
        texts = [row[0] for row in given.selectExpr(f"CAST(`{name}` AS STRING)").collect() if row[0] is not None]
        conditions += [f"`{name}` {how} CAST('{text}' AS {kind})" for text in texts for how in ("=", ">=", "<=")]
    [expected] = given.selectExpr(*[f"count_if({condition})" for condition in conditions]).collect()
    assert [stored.where(condition).count() for condition in conditions] == list(expected)


def test_a_table_that_it_makes_is_the_one_that_spark_makes(spark: SparkSession, rows: Rows, tmp_path: Path):
    target, given = Append("silver.t"), rows(KINDS, *VALUES)
    made = []
    for few in (False, True):
        table = Table(str(tmp_path), f"silver.{few}")
        said = targets.Commit("q", 0, commit(0, rows_transformed=4, rows_written=4).metadata, {}, WITH_CHANGES)
        targets.write(target, table, given, said, few=few)
        opened = table.open()
        shape = json.loads(opened.schema().to_json())
        made.append((shape, opened.metadata().configuration, table.version(), table.last_batch("q"), told(table)))
        assert_df_equality(spark.read.format("delta").load(table.path), given, ignore_row_order=True)
    assert made_by(table) == "delta-rs"
    assert made[0] == made[1]


def test_a_table_is_left_to_spark_where_the_session_says_what_new_tables_are_like(
    spark: SparkSession, rows: Rows, table: Table
):
    name = "spark.databricks.delta.properties.defaults.dataSkippingNumIndexedCols"
    spark.conf.set(name, "3")
    try:
        targets.write(Append("silver.t"), table, rows("id BIGINT", (1,)), commit(0), few=True)
    finally:
        spark.conf.unset(name)
    assert table.open().metadata().configuration == {"delta.dataSkippingNumIndexedCols": "3"}


def test_its_commit_says_what_one_of_sparks_says(rows: Rows, table: Table):
    target, three = Append("silver.t"), rows("id BIGINT", (1,), (2,), (3,))
    outcomes = []
    for number, few in enumerate((False, False, True)):
        targets.write(target, table, three, commit(number, rows_transformed=3, rows_written=3), few=few)
        outcome = outcome_of(next(table.commits(1)))
        assert outcome is not None
        outcomes.append((outcome.rows_inserted, outcome.rows_written, outcome.rows_superseded, outcome.query_id))
    assert made_by(table) == "delta-rs"
    assert set(outcomes) == {(3, 3, 0, "q")}
    assert DeltaTable(table.path).transaction_version("q") == 2


def test_a_key_is_taken_once_and_an_empty_batch_leaves_its_key(rows: Rows, table: Table):
    target, one = Append("silver.t"), rows("id BIGINT", (1,))
    for number in (0, 1, 1, 0):
        targets.write(target, table, one, commit(number), few=True)
    assert table.version() == 1
    targets.write(target, table, one.limit(0), commit(2), few=True)
    assert (table.version(), table.last_batch("q")) == (2, 2)


@pytest.mark.parametrize(
    ("target", "error"),
    # A MERGE sees what the other one did before it sees the key: it is tried again, and finds the key.
    [(Append("silver.t"), JobHeld), (Upsert("silver.t", keys="id"), TransientError)],
    ids=["append", "upsert"],
)
def test_whoever_commits_the_same_batch_meanwhile_wins_alone(
    rows: Rows, table: Table, monkeypatch: pytest.MonkeyPatch, target: Append | Upsert, error: type[Exception]
):
    one = rows("id BIGINT", (1,))
    targets.write(target, table, one, commit(0))
    seen = table.open()  # before the other run's commit
    targets.write(target, table, one, commit(1), few=True)
    monkeypatch.setattr(Table, "open", lambda self, version=None: seen)
    with pytest.raises(CommitFailedError) as refused:
        targets.write(target, table, one, commit(1), few=True)
    assert isinstance(classify(refused.value, "take", 1), error)
    monkeypatch.undo()
    targets.write(target, table, one, commit(1), few=True)
    assert table.version() == 1


def changes(spark: SparkSession, table: Table) -> list[tuple[Any, ...]]:
    """Every image of every change since the first commit, as text; which version it is in counts too."""
    feed = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 1).load(table.path)
    return sorted(tuple(map(str, row)) for row in feed.drop("_commit_timestamp").collect())


def told(table: Table) -> list[tuple[Any, ...]]:
    """What the commits say of themselves."""
    outcomes = [outcome_of(commit) for commit in table.commits()]
    return [(o.batch_id, o.rows_inserted, o.rows_updated, o.rows_deleted, o.rows_written) for o in outcomes if o]


WITH_CHANGES = {"delta.enableChangeDataFeed": "true"}
VERSIONS = "`a-b` BIGINT, text STRING, `Upper` INT, major INT, minor TIMESTAMP"
UPSERTS = {
    "newest by two": Upsert("silver.t", keys=["a-b", "text"], newest_by=["major", "minor"], delete_when="`Upper` = 9"),
    "the last one": Upsert("silver.t", keys=["a-b", "text"], delete_when="`Upper` = 9"),
    "no deletes": Upsert("silver.t", keys=["a-b", "text"], newest_by="minor"),
}


def both(
    rows: Rows, folder: Path, target: Upsert | Replace, batches: Sequence[tuple[DataFrame, DataFrame | None]]
) -> tuple[Table, Table]:
    """The same batches by Spark and by delta-rs."""
    by_spark, by_delta_rs = Table(str(folder), "silver.spark"), Table(str(folder), "silver.small")
    for table, few in ((by_spark, False), (by_delta_rs, True)):
        for number, (batch, groups) in enumerate(batches):
            said = targets.Commit("q", number, commit(number, rows_written=-1).metadata, {}, WITH_CHANGES)
            targets.write(target, table, batch, said, groups, few=few)
        assert made_by(table) == ("delta-rs" if few else "Apache-Spark")
    return by_spark, by_delta_rs


def assert_same(spark: SparkSession, one: Table, other: Table) -> None:
    found = [spark.read.format("delta").load(table.path) for table in (one, other)]
    assert_df_equality(*found, ignore_row_order=True, ignore_nullable=True)
    assert changes(spark, one) == changes(spark, other)
    assert told(one) == told(other)


@pytest.mark.parametrize("target", UPSERTS.values(), ids=UPSERTS)
def test_an_upsert_changes_what_one_of_sparks_changes_and_says_so(
    spark: SparkSession, rows: Rows, tmp_path: Path, target: Upsert
):
    seed = random.SystemRandom().randrange(10**6)
    dice = random.Random(seed)

    def version() -> tuple[Any, ...]:
        at = dice.choice([None, *(datetime(2024, 1, 1, 0, 0, 0, micros, UTC) for micros in range(3))])
        return dice.randrange(12), dice.choice("xy"), dice.choice([1, 2, 9]), dice.choice([None, 1, 2]), at

    batches = [(rows(VERSIONS, *[version() for _ in range(20)]).localCheckpoint(), None) for _ in range(4)]
    print(f"seed {seed}")
    assert_same(spark, *both(rows, tmp_path, target, batches))


def test_a_replace_changes_what_one_of_sparks_changes_the_group_without_a_name_included(
    spark: SparkSession, rows: Rows, tmp_path: Path
):
    shape, keys = "shop STRING, day DATE, sum DECIMAL(10,2)", "shop STRING, day DATE"
    day, other = date(2024, 1, 1), date(2024, 1, 2)
    batches = [
        (rows(shape, ("a", day, Decimal("1.00")), (None, day, Decimal("2.00")), ("a", None, None)), None),
        (rows(shape, (None, day, Decimal("3.00")), ("b", day, None)), rows(keys, (None, day), ("b", day))),
        (rows(shape, ("a", None, Decimal("4.00"))), rows(keys, ("a", None), ("a", other), ("a", day))),
        (rows(shape), rows(keys, ("b", day))),
    ]
    batches[0] = (batches[0][0], rows(keys))
    assert_same(spark, *both(rows, tmp_path, Replace("silver.t", keys=["shop", "day"]), batches))


def test_every_type_is_merged_as_it_is(spark: SparkSession, rows: Rows, table: Table):
    given = rows(KINDS, *VALUES)
    given.limit(0).write.format("delta").options(**WITH_CHANGES).save(table.path)
    target = Upsert("silver.t", keys=["l"])
    for number, value in enumerate([*VALUES, *VALUES]):
        targets.write(target, table, rows(KINDS, value).where("l IS NOT NULL"), commit(number), few=True)
        assert made_by(table) == "delta-rs"
    stored = spark.read.format("delta").load(table.path)
    assert_df_equality(stored, given.where("l IS NOT NULL"), ignore_row_order=True, ignore_nullable=True)


def test_a_merge_that_changes_nothing_leaves_its_key_and_no_change_to_read(
    spark: SparkSession, rows: Rows, tmp_path: Path
):
    one, older = rows("id BIGINT, at INT", (1, 5)), rows("id BIGINT, at INT", (1, 4))
    table = both(rows, tmp_path, Upsert("silver.t", keys="id", newest_by="at"), [(one, None), (older, None)])[1]
    assert (table.version(), table.last_batch("q")) == (1, 1)
    assert told(table)[0] == (1, 0, 0, 0, 0)
    assert changes(spark, table) == []


def test_bounds_keep_a_small_merge_off_the_files_outside_them(rows: Rows, table: Table, monkeypatch):
    """The middle file is gone from the disk: a MERGE that looked into it would fail."""
    target, files = Upsert("silver.t", keys="id", newest_by="at"), []
    for number in range(3):
        part = rows("id BIGINT, at INT", *[(number * 100 + i, 1) for i in range(5)])
        targets.write(Append("silver.t"), table, part.coalesce(1), commit(number))
        files.append(set(DeltaTable(table.path).file_uris()))
    [middle] = files[1] - files[0]
    Path(middle).unlink()
    batch, near = rows("id BIGINT, at INT", (201, 2), (204, 2)), {"id": (201, 204)}
    monkeypatch.setattr(small, "MOST_TOUCHED", 1000)  # one file, not two
    targets.write(target, table, batch, commit(4, near), few=True)
    assert made_by(table) == "delta-rs"
    assert told(table)[0][:4] == (4, 0, 2, 0)


def test_a_merge_that_would_rewrite_much_is_left_to_spark(rows: Rows, table: Table, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(small, "MOST_TOUCHED", 100)
    target, one = Upsert("silver.t", keys="id"), rows("id BIGINT", (1,))
    for number in range(2):
        targets.write(target, table, one, commit(number), few=True)
    assert made_by(table) == "Apache-Spark"


@pytest.mark.parametrize(
    ("schema", "value", "given"),
    [
        ("x DOUBLE", 1.5, {}),
        ("x BINARY", b"1", {}),
        ("x ARRAY<INT>", [1], {}),
        ("x DECIMAL(16,2)", Decimal("1.00"), {}),
        ("x TIMESTAMP_NTZ", datetime(2024, 1, 1), {}),
        ("x INT", 1, {"delta.enableDeletionVectors": "true"}),
        ("x INT", 1, {"delta.dataSkippingNumIndexedCols": "1"}),
    ],
)
def test_what_delta_rs_would_write_otherwise_is_written_by_spark(
    rows: Rows, table: Table, schema: str, value: Any, given: dict[str, str]
):
    one = rows(f"id INT, {schema}", (1, value))
    one.write.format("delta").options(**given).save(table.path)
    for number, target in enumerate((Append("silver.t"), Upsert("silver.t", keys="id"))):
        targets.write(target, table, one.limit(number), commit(number), few=True)
        assert made_by(table) == "Apache-Spark"
    made = Table(table.warehouse, "silver.made")
    said = targets.Commit("q", 0, commit(0).metadata, {}, given)
    targets.write(Append("silver.made"), made, one, said, few=True)
    assert made_by(made) == "Apache-Spark"


def test_partitions_and_new_columns_are_left_to_spark(rows: Rows, table: Table):
    one = rows("id BIGINT, part STRING", (1, "a"))
    one.write.format("delta").partitionBy("part").save(table.path)
    targets.write(Append("silver.t", partition_by="part"), table, one, commit(1), few=True)
    assert made_by(table) == "Apache-Spark"
    other = Table(table.warehouse, "silver.u")
    one.write.format("delta").save(other.path)
    more = rows("id BIGINT, part STRING, new INT", (1, "a", 2))
    targets.write(Append("silver.u", evolve="add_columns"), other, more, commit(1), few=True)
    assert made_by(other) == "Apache-Spark"
    assert "new" in DeltaTable(other.path).schema().to_json()


def test_what_is_small_is_told_by_rows_and_by_their_text(rows: Rows):
    shape = rows("id BIGINT, text STRING").schema
    assert small.is_small(20_000, 0, shape)
    assert not small.is_small(20_001, 0, shape)
    assert not small.is_small(10, 9 << 20, shape)
    counted = rows("id BIGINT, text STRING", (1, "\N{GRINNING FACE}"), (2, None)).select(small.width(shape)).collect()
    assert [row[0] for row in counted] == [4, 0]


def test_a_table_that_goes_back_is_the_one_of_sparks_restore(spark: SparkSession, rows: Rows, tmp_path: Path):
    by_spark, by_delta_rs = Table(str(tmp_path), "silver.spark"), Table(str(tmp_path), "silver.small")
    for table in (by_spark, by_delta_rs):
        for values in (VALUES, [(None,) * 9]):  # the second time in place of the first: its files have to come back
            writer = rows(KINDS, *values).coalesce(1).write.format("delta").mode("overwrite")
            writer.option("delta.enableChangeDataFeed", "true").save(table.path)
    SparksTable.forPath(spark, by_spark.path).restoreToVersion(0)
    assert small.restore(by_delta_rs, 0, "why")
    assert (made_by(by_spark), made_by(by_delta_rs)) == ("Apache-Spark", "delta-rs")
    assert_same(spark, by_spark, by_delta_rs)
    there, then = by_delta_rs.open(), by_delta_rs.open(0)
    assert there.schema() == then.schema()
    assert statistics(there) == statistics(then)


def statistics(opened: DeltaTable) -> list[dict[str, Any]]:
    """What the log says of each file's rows."""
    rows = pa.table(opened.get_add_actions(flatten=True)).to_pylist()
    return [{name: value for name, value in row.items() if name != "modification_time"} for row in rows]


def test_a_table_goes_back_with_its_columns_of_then_and_says_why(spark: SparkSession, table: Table):
    two_versions(spark, table, "DECIMAL(10,2)")
    assert small.restore(table, 0, "why")
    newest = next(table.commits(1))
    assert (newest["operation"], newest["userMetadata"]) == ("RESTORE", "why")
    back = spark.read.format("delta").load(table.path)
    assert (back.columns, sorted(map(tuple, back.collect()))) == (["id", "amount"], [(0, 0), (1, 1), (2, 2)])


def test_a_table_that_is_not_plain_and_one_with_nothing_to_go_back_are_left_to_spark(spark: SparkSession, table: Table):
    two_versions(spark, table, "DOUBLE")
    for version in (0, 1):
        assert not small.restore(table, version, "why")
    plain = Table(table.warehouse, "silver.plain")
    two_versions(spark, plain, "INT")
    assert not small.restore(plain, 1, "why")
    assert (table.version(), plain.version()) == (1, 1)


def two_versions(spark: SparkSession, table: Table, kind: str) -> None:
    """Three rows; then three more with one column more."""
    rows = spark.range(3).selectExpr("id", f"CAST(id AS {kind}) amount")
    rows.write.format("delta").save(table.path)
    more = rows.selectExpr("id + 3 AS id", "amount", "'new' AS note")
    more.write.format("delta").mode("append").option("mergeSchema", "true").save(table.path)
