"""A small append by delta-rs leaves the table as Spark would have left it, and once a key; all else is left to Spark."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from chispa import assert_df_equality
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from microbatch.errors import JobHeld
from microbatch.job import Append
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


def test_whoever_commits_the_same_batch_meanwhile_wins_alone(rows: Rows, table: Table, monkeypatch: pytest.MonkeyPatch):
    target, one = Append("silver.t"), rows("id BIGINT", (1,))
    targets.write(target, table, one, commit(0))
    seen = table.open()  # before the other run's commit
    targets.write(target, table, one, commit(1), few=True)
    monkeypatch.setattr(Table, "open", lambda self, version=None: seen)
    with pytest.raises(Exception, match="Concurrent transaction failed") as refused:
        targets.write(target, table, one, commit(1), few=True)
    assert isinstance(classify(refused.value, "take", 1), JobHeld)
    monkeypatch.undo()
    assert table.version() == 1


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
    one = rows(schema, (value,))
    one.write.format("delta").options(**given).save(table.path)
    targets.write(Append("silver.t"), table, one, commit(1), few=True)
    assert made_by(table) == "Apache-Spark"


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
