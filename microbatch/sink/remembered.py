"""What a table cannot show, kept for 30 days in schema `ops`, so that what comes late finds its place.

`ops.deletes`: keys that were deleted, and as of which version. `ops.unchanged`: versions of a History after which nothing that
is tracked changed; a later one stands for them. Both are written before the target; an attempt at a batch replaces what the one
before it left, and does not read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from microbatch.sink import ops
from microbatch.sink.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MANY = 20_000  # records of a batch that Spark writes instead of the driver


def keep(warehouse: str, name: str, records: DataFrame, batch: Mapping[str, Any], again: bool) -> None:
    """Write what a batch leaves to remember, in one commit. One or two Spark jobs.

    Args:
        name: `deletes` or `unchanged`.
        records: the columns of that table that differ from record to record.
        batch: the others: job, flow, query_id, batch_id, table, and when.
        again: whether an earlier attempt at this batch may have left some: it never reached the target, and what it left may
            be true no more.
    """
    import pyarrow as pa

    shape, stored = ops.schema(name), Table(warehouse, f"ops.{name}")
    these = f"query_id = {ops.literal(batch['query_id'])} AND batch_id = {ops.literal(batch['batch_id'])}"
    found = records.limit(MANY + 1).toArrow().to_pylist()
    if len(found) <= MANY:
        if found or (again and stored.exists()):
            data = pa.Table.from_pylist([{**batch, **each} for each in found], schema=shape)
            ops.write(stored, data, predicate=these if again else None)
        return
    whole = records.withColumns({column: F.lit(value) for column, value in batch.items()})
    writer = whole.withColumn("batch_id", F.col("batch_id").cast("long")).select(*shape.names).write.format("delta")
    writer = writer.mode("overwrite").option("replaceWhere", these) if stored.exists() else writer
    writer.save(stored.path)


def only(stay: DataFrame, warehouse: str, name: str, table: str) -> None:
    """Forget what is remembered of a table but for `stay`, which was read from there. One or two Spark jobs."""
    writer = stay.write.format("delta").mode("overwrite").option("replaceWhere", f"`table` = {ops.literal(table)}")
    writer.save(Table(warehouse, f"ops.{name}").path)


def kept(
    spark: SparkSession, warehouse: str, name: str, table: str, now: datetime, but: Mapping[str, Any]
) -> DataFrame | None:
    """What is remembered of a table, without the records of batch `but`; None where nothing ever was."""
    stored = Table(warehouse, f"ops.{name}")
    if not stored.exists():
        return None
    own = (F.col("query_id") == but["query_id"]) & (F.col("batch_id") == but["batch_id"])
    found = spark.read.format("delta").load(stored.path).where(~own)
    return found.where((F.col("table") == table) & (F.col(ops.MEMORY[name]) > F.lit(now - ops.REMEMBERED)))
