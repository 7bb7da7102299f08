"""Small commits of local runs: from the pinned rows through delta-rs, with no Spark write and no second look at the log.

An append of 1,000 rows to a table with a log of some dozen versions: 0.12 s, by Spark 0.75 s (warm, two cores), and one file in
place of one a core. A MERGE of as many into 5,000: 0.04 s, by Spark 1 s. It is done only where the table is the same
afterwards, key, counts, changes, statistics and all: a plain table of this machine with columns of `TYPES`. All else, all that
is large or would rewrite much, and every batch on a cluster is written by Spark.

Source:
    delta-rs refuses a commit beside another one with the same transaction id that it did not see (tried; `test_small`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F
from pyspark.sql.types import DecimalType, StringType, StructType

from microbatch.places import is_local
from microbatch.sink import exact, ops
from microbatch.sink.tables import columns_of

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import CommitProperties, DeltaTable
    from pyspark.sql import Column, DataFrame

    from microbatch.sink.tables import Table
    from microbatch.sink.targets import Commit, Merge

MOST_ROWS, MOST_BYTES = 20_000, 8 << 20  # they pass through the memory of the driver's Python
MOST_TOUCHED = 16 << 20  # bytes of files that a MERGE may rewrite: a million short rows, 0.4 s, 100 MiB of memory
# As Delta's schema calls them, and decimals of EXACT_DIGITS. Not among them: floating point, for delta-rs leaves NaN out of the
# statistics, and Spark would pass by a file that has one; binary, and what is nested, whose size nobody counted.
TYPES = ("boolean", "byte", "short", "integer", "long", "string", "date", "timestamp")
EXACT_DIGITS = 15  # of a decimal: delta-rs writes its statistics as floating point
# What a table may be told without changing how rows are written.
PROPERTIES = (
    "delta.checkpointInterval",
    "delta.enableChangeDataFeed",
    "delta.logRetentionDuration",
    "delta.deletedFileRetentionDuration",
)
SIGNED = re.compile(r"^[+-]", re.MULTILINE)
DEFAULTS = "spark.databricks.delta.properties.defaults."
READS, WRITES = 1, 4  # protocol of readers and writers, without table features; or with these, which are as old
FEATURES = {"appendOnly", "changeDataFeed", "invariants"}


def width(shape: StructType) -> Column:
    """The bytes of a row's text: what there is beside so many numbers."""
    texts = [F.coalesce(F.octet_length(f"`{f.name}`"), F.lit(0)) for f in shape if isinstance(f.dataType, StringType)]
    total = F.lit(0).cast("long")
    for each in texts:
        total = total + each
    return total


def is_small(rows: int, text_bytes: int, shape: StructType) -> bool:
    """Whether so many rows, with so much text in all, may pass through the driver."""
    return rows <= MOST_ROWS and text_bytes + rows * 8 * len(shape) <= MOST_BYTES


def create(table: Table, rows: DataFrame, commit: Commit) -> bool:
    """Make the table with these rows, where that can be done from here; whether it was.

    Guarantee:
        As of `append`.
    """
    plain = _is_known(rows.schema) and set(commit.properties) <= set(PROPERTIES)
    # What the session says of new tables is Spark's to heed.
    if (
        not _is_here(table, rows)
        or not plain
        or any(name.startswith(DEFAULTS) for name in rows.sparkSession.conf.getAll)
    ):
        return False
    import pyarrow as pa
    from deltalake import write_deltalake

    found = rows.toArrow()
    # As Spark makes a table: no column of it refuses nulls.
    data = found.cast(pa.schema([field.with_nullable(True) for field in found.schema]))
    write_deltalake(
        table.path, data, mode="append", configuration=dict(commit.properties), commit_properties=_said(commit)
    )
    return True


def append(table: Table, rows: DataFrame, commit: Commit) -> bool:
    """Append the rows, where that can be done from here; whether it was.

    Guarantee:
        As of a commit by Spark: once per (query id, batch id), all or nothing.
    """
    opened = _opened(table, rows, rows.columns)
    if opened is None:
        return False
    if not _is_there(opened, commit):
        _write(opened, rows.toArrow(), commit)
    return True


def merge(
    table: Table,
    source: DataFrame,
    columns: Sequence[str],
    what: Merge,
    near: Sequence[tuple[str, Any, Any]],
    commit: Commit,
) -> bool:
    """Merge the source, where that can be done from here; whether it was.

    Args:
        columns: those of the source that are the table's.
        near: keys, with the smallest and the largest value that is looked for.

    Guarantee:
        As of `append`. A MERGE that changes no row leaves its key.
    """
    opened = _opened(table, source, columns)
    if opened is None or _touched(opened, near) > MOST_TOUCHED:
        return False
    if _is_there(opened, commit):
        return True
    rows, before = source.toArrow(), opened.version()
    # A year of five digits, or before the first, is one that Spark writes with a sign and delta-rs does not read.
    bounds = [
        f"t.`{key}` BETWEEN {ops.literal(low)} AND {ops.literal(high)}"
        for key, low, high in near
        if not (isinstance(source.schema[key].dataType, exact.TIMES) and SIGNED.search(low + "\n" + high))
    ]
    values = {f"`{name}`": f"s.`{name}`" for name in columns}
    merging = opened.merge(
        rows, " AND ".join([what.on, *bounds]), source_alias="s", target_alias="t", commit_properties=_said(commit)
    )
    if what.deletes:
        merging = merging.when_matched_delete(what.deletes)
    if what.updates:
        merging = merging.when_matched_update(values, predicate=what.updates)
    merging.when_not_matched_insert(values, predicate=what.inserts).execute()
    if opened.version() == before:  # delta-rs makes no commit of nothing
        _write(opened, rows.select(list(columns)).slice(0, 0), commit)
    return True


def restore(table: Table, version: int, metadata: str) -> bool:
    """Set the table back to a version, where that can be done from here; whether it was.

    By Spark it takes six seconds and 13 jobs however small the table is, from here a fiftieth of one. No row is written, but the
    statistics of the files that come back are, so it is for the tables that `append` is for.

    Args:
        metadata: for the commit's `userMetadata`.
    """
    from deltalake import CommitProperties
    from deltalake.exceptions import DeltaError

    if not is_local(table.path):
        return False
    opened = table.open()
    for each in (opened, table.open(version)):
        if not _is_plain(each):
            return False
    before = opened.version()
    try:
        opened.restore(version, commit_properties=CommitProperties(custom_metadata={"userMetadata": metadata}))
    except DeltaError:
        return False  # Spark can do it, or says why not
    return opened.version() != before  # delta-rs makes no commit of nothing


def _opened(table: Table, rows: DataFrame, columns: Sequence[str]) -> DeltaTable | None:
    """The table, where nothing of it or of the rows needs Spark."""
    if not _is_here(table, rows):
        return None
    opened = table.open()
    wanted = StructType([rows.schema[name] for name in columns])
    return opened if _is_plain(opened) and _is_of(opened, wanted) else None


def _is_here(table: Table, rows: DataFrame) -> bool:
    return str(rows.sparkSession.sparkContext.master).startswith("local") and is_local(table.path)


def _is_there(opened: DeltaTable, commit: Commit) -> bool:
    last = opened.transaction_version(commit.query_id)
    return last is not None and last >= commit.batch_id


def _write(opened: DeltaTable, rows: pa.Table, commit: Commit) -> None:
    from deltalake import write_deltalake

    write_deltalake(opened, rows, mode="append", commit_properties=_said(commit))


def _said(commit: Commit) -> CommitProperties:
    from deltalake import CommitProperties, Transaction

    key = Transaction(commit.query_id, commit.batch_id)
    return CommitProperties(app_transactions=[key], custom_metadata={"userMetadata": commit.metadata})


def _touched(opened: DeltaTable, near: Sequence[tuple[str, Any, Any]]) -> int:
    """The bytes of the files that may hold one of the rows."""
    import pyarrow as pa

    files = pa.table(opened.get_add_actions(flatten=True))
    ranges = [
        (files.column(f"min.{key}").to_pylist(), files.column(f"max.{key}").to_pylist(), low, high)
        for key, low, high in near
        if {f"min.{key}", f"max.{key}"} <= set(files.column_names) and isinstance(low, int | str)
    ]

    def outside(number: int) -> bool:
        known = ((smallest[number], largest[number], low, high) for smallest, largest, low, high in ranges)
        return any(isinstance(least, type(low)) and (least > high or most < low) for least, most, low, high in known)

    sizes = files.column("size_bytes").to_pylist()
    return sum(size for number, size in enumerate(sizes) if not outside(number))


def _is_plain(opened: DeltaTable) -> bool:
    """Whether nothing of the table needs Spark to write it."""
    protocol, about = opened.protocol(), opened.metadata()
    featured = protocol.writer_features is not None and set(protocol.writer_features) <= FEATURES
    known = protocol.min_reader_version <= READS and (protocol.min_writer_version <= WRITES or featured)
    if not known or about.partition_columns or not set(about.configuration) <= set(PROPERTIES):
        return False
    columns = columns_of(opened)
    return all(column.nullable for column in columns) and _is_known(columns)


def _is_of(opened: DeltaTable, shape: StructType) -> bool:
    """Whether rows of this shape are of the table's columns; a column of rows may hold no null where the table's may."""
    stored, given = ([(f.name, f.dataType) for f in each] for each in (columns_of(opened), shape))
    return stored == given and not any(field.metadata for field in shape)


def _is_known(shape: StructType) -> bool:
    kinds = [field.dataType for field in shape]
    return not any(field.metadata for field in shape) and all(
        kind.precision <= EXACT_DIGITS if isinstance(kind, DecimalType) else kind.jsonValue() in TYPES for kind in kinds
    )
