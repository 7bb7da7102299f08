"""One commit a batch: append, upsert or replace, keyed so that doing it twice changes nothing.

Every commit carries Delta's transaction identifiers (`txnAppId` = the checkpoint's query id, `txnVersion` = batch id) and
the batch's outcome as `userMetadata`. A second commit with the same key is skipped by Delta without a word: that is the
fence behind the lock, so a batch makes exactly one commit to its target.

Source:
    Delta Lake manual, "Idempotent table writes in foreachBatch"; the settings on the session hold for MERGE too (tried).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F
from pyspark.sql.window import Window

from microbatch.job import Append, History, Replace, Target, Upsert
from microbatch.sink import deletes, exact, small
from microbatch.sink.tables import ORDER, Table

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

GROUP = "_mb_group"  # marks, in the source of a Replace, the row that stands for a group and removes its old rows
DELETED = "_mb_deleted"  # marks, in the source of an Upsert, the row that removes its key
PLACE = "_mb_place"
ALL = "TRUE"
TXN_APP, TXN_VERSION = "spark.databricks.delta.write.txnAppId", "spark.databricks.delta.write.txnVersion"
USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"


@dataclass(frozen=True)
class Commit:
    """The key of a batch's one commit, and what it says.

    Attributes:
        metadata: the outcome as JSON.
        bounds: column -> (smallest, largest) over the batch, for the columns that prune the target's files; see `exact.carried`.
        properties: table properties, set when the table is made.
    """

    query_id: str
    batch_id: int
    metadata: str
    bounds: Mapping[str, tuple[Any, Any]]
    properties: Mapping[str, str]


@dataclass(frozen=True)
class Merge:
    """What a MERGE of a source, called `s`, does to a table, called `t`; in the SQL that Spark and delta-rs share.

    Attributes:
        on: which rows match.
        deletes: which of the table's rows that match go; None: none.
        updates: which of the others become the source's; None: none.
        inserts: which of the source's rows that match none come in.
    """

    on: str
    deletes: str | None
    updates: str | None
    inserts: str


def write(
    target: Target,
    table: Table,
    rows: DataFrame,
    commit: Commit,
    groups: DataFrame | None = None,
    deletions: DataFrame | None = None,
    few: bool = False,
) -> None:
    """Commit a batch's good rows to its target.

    Args:
        rows: pinned; the columns of the target, and for an Upsert of changes `ORDER`. For a History as `history.tell` gives them.
        groups: for a Replace or a History, the groups that are rewritten: one row a group, the columns of `target.keys`.
        deletions: for an Upsert, what is remembered of earlier deletions (see `deletes`).
        few: they may pass through the driver (see `small`).

    Guarantee:
        Exactly once per (query id, batch id). A batch with no rows still commits, so that its key is in the log.
    """
    spark = rows.sparkSession
    new = not table.exists()
    if isinstance(target, Upsert):
        rows = newest(deletes.without_older(target, rows, deletions), target)
    if new:
        rows = rows.where(~deletes.are(target)) if isinstance(target, Upsert) else rows
        plain = not target.partition_by and not target.cluster_by
        if few and plain and small.create(table, rows, commit):
            return
        with keyed(spark, commit):
            _create(rows, target, table, commit)
    elif isinstance(target, Append):
        if few and small.append(table, rows, commit):
            return
        with keyed(spark, commit):
            _append(rows, target, table)
    else:
        source, what = _merge_of(rows, target, groups)
        if few and small.merge(table, source, rows.columns, what, _near(target.keys, commit.bounds), commit):
            return
        with keyed(spark, commit):
            _merge(spark, target, table, source, rows.columns, what, commit.bounds)


def newest(rows: DataFrame, target: Upsert) -> DataFrame:
    """One row per key: the newest version; on a tie the change that came later (`ORDER`, where the rows have it), else the one
    that comes last in an order fixed by the rows themselves."""
    versions = [F.col(f"`{name}`").desc_nulls_last() for name in target.newest_by]
    told = [F.col(ORDER).desc()] if ORDER in rows.columns else []
    # A rewritten group comes as a delete and an insert of one commit, so of one time: what is there again stays.
    ties = [*told, deletes.are(target).asc(), *exact.order_of(rows.drop(ORDER))]
    order = Window.partitionBy(*[f"`{key}`" for key in target.keys]).orderBy(*versions, *ties)
    return rows.withColumn(PLACE, F.row_number().over(order)).where(f"{PLACE} = 1").drop(PLACE, ORDER)


def _merge_of(rows: DataFrame, target: Upsert | Replace | History, groups: DataFrame | None) -> tuple[DataFrame, Merge]:
    """The source of the MERGE that puts `rows` into the target, and what is done with it."""
    if isinstance(target, Upsert):
        same = [f"t.`{key}` = s.`{key}`" for key in target.keys]
        newer = _not_older(target.newest_by)
        # A name in `delete_when` means the source's column, in a MERGE it could mean the target's: so it is computed before.
        deleted = f"s.`{DELETED}`"
        gone = f"{newer} AND {deleted}" if target.delete_when else None
        what = Merge(" AND ".join(same), deletes=gone, updates=newer, inserts=f"NOT {deleted}")
        return rows.withColumn(DELETED, deletes.are(target)), what
    assert groups is not None, "a Replace names its groups, and a History its keys"
    # A row that stands for its group deletes the old rows, all others are inserted. Exact for nulls.
    removers = groups.select(*[f"`{key}`" for key in target.keys]).withColumn(GROUP, F.lit(True))
    source = rows.withColumn(GROUP, F.lit(False)).unionByName(removers, allowMissingColumns=True)
    same = [_same(f"t.`{key}`", f"s.`{key}`") for key in target.keys]
    what = Merge(" AND ".join([*same, f"s.`{GROUP}`"]), deletes=ALL, updates=None, inserts=f"NOT s.`{GROUP}`")
    return source, what


def _merge(
    spark: SparkSession,
    target: Upsert | Replace | History,
    table: Table,
    source: DataFrame,
    columns: Sequence[str],
    what: Merge,
    bounds: Mapping[str, tuple[Any, Any]],
) -> None:
    """The MERGE, by Spark."""
    near = []
    for key, low, high in _near(target.keys, bounds):
        kind = source.schema[key].dataType
        near.append(F.col(f"t.`{key}`").between(exact.brought(low, kind), exact.brought(high, kind)))
    values: dict[str, str | Column] = {f"`{name}`": f"s.`{name}`" for name in columns}
    merge = merge_into(spark, table, source, _all([F.expr(what.on), *near]))
    if target.evolve == "add_columns":
        merge = merge.withSchemaEvolution()
    if what.deletes:
        merge = merge.whenMatchedDelete(None if what.deletes == ALL else what.deletes)
    if what.updates:
        merge = merge.whenMatchedUpdate(what.updates, values)
    merge.whenNotMatchedInsert(what.inserts, values).execute()


def _append(rows: DataFrame, target: Append, table: Table) -> None:
    writer = rows.write.format("delta").mode("append")
    if target.evolve == "add_columns":
        writer = writer.option("mergeSchema", "true")
    writer.save(table.path)


def _create(rows: DataFrame, target: Target, table: Table, commit: Commit) -> None:
    from delta.tables import DeltaTable

    if (
        target.cluster_by
    ):  # the file writer knows no clustering: the table is made first, and its key is not spent on that
        with keyed(rows.sparkSession, None):
            maker = DeltaTable.createIfNotExists(rows.sparkSession).location(table.path).addColumns(rows.schema)
            for name, value in commit.properties.items():
                maker = maker.property(name, value)
            maker.clusterBy(*target.cluster_by).execute()
        rows.write.format("delta").mode("append").save(table.path)
        return
    writer = rows.write.format("delta").mode("append").options(**commit.properties)
    if target.partition_by:
        writer = writer.partitionBy(*target.partition_by)
    writer.save(table.path)


@contextmanager
def keyed(spark: SparkSession, commit: Commit | None) -> Iterator[None]:
    """Set the key on the batch's session, and put back what was there: a stray pair would eat the next write."""
    wanted = (
        {TXN_APP: commit.query_id, TXN_VERSION: str(commit.batch_id), USER_METADATA: commit.metadata} if commit else {}
    )
    before = {name: spark.conf.get(name, None) for name in (TXN_APP, TXN_VERSION, USER_METADATA)}
    _set(spark, {name: wanted.get(name) for name in before})
    try:
        yield
    finally:
        _set(spark, before)


def _set(spark: SparkSession, settings: Mapping[str, str | None]) -> None:
    for name, value in settings.items():
        if value is None:
            spark.conf.unset(name)
        else:
            spark.conf.set(name, value)


def merge_into(spark: SparkSession, table: Table, source: DataFrame, on: Column) -> Any:
    """A MERGE of `source`, called `s`, into the table, called `t`."""
    from delta.tables import DeltaTable

    return DeltaTable.forPath(spark, table.path).alias("t").merge(source.alias("s"), on)


def _not_older(columns: Sequence[str]) -> str:
    """Whether the source's version is not older: column for column, a null being older than any value."""
    condition = ALL
    for name in reversed(columns):
        new, old = f"s.`{name}`", f"t.`{name}`"
        newer = f"{new} > {old} OR ({old} IS NULL AND {new} IS NOT NULL)"
        condition = f"({newer} OR ({_same(new, old)} AND {condition}))"
    return condition


def _same(one: str, other: str) -> str:
    # In parentheses: what follows would be a part of the second side to delta-rs's parser.
    return f"({one} IS NOT DISTINCT FROM {other})"


def _near(keys: Sequence[str], bounds: Mapping[str, tuple[Any, Any]]) -> list[tuple[str, Any, Any]]:
    """Keys with the smallest and largest value to look for: Delta derives no file pruning from the source of a MERGE."""
    return [(key, *_rounded(low, high)) for key, (low, high) in bounds.items() if key in keys and low is not None]


def _rounded(low: Any, high: Any) -> tuple[Any, Any]:
    """Whole numbers a little further apart, and mostly the same ones in the next batch: they stand in generated code, and eight
    pieces of it would be compiled anew for each batch."""
    if not isinstance(low, int) or not isinstance(high, int):
        return low, high
    step = 1 << max(0, (high - low).bit_length() - 2)
    return max(low // step * step, -(2**63)), min(-(-(high + 1) // step) * step - 1, 2**63 - 1)


def _all(conditions: Sequence[Column]) -> Column:
    return reduce(lambda a, b: a & b, conditions)
