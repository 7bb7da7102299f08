"""Deletions remembered: an older version of a deleted key that comes later must not bring the row back.

An upserted table forgets a key it deletes. `ops.deletes` keeps key and version for 30 days; what comes later with an older
version is superseded. Written by delta-rs in the driver before the target; an attempt
at a batch replaces what the one before it left.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from microbatch.job import History, Upsert
from microbatch.sink import exact, ops
from microbatch.sink.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

REMEMBERED = timedelta(days=30)


def are(target: Upsert | History) -> Column:
    """True for a row that deletes its key."""
    return F.coalesce(F.expr(f"({target.delete_when})"), F.lit(False)) if target.delete_when else F.lit(False)


def remember(
    warehouse: str, target: Upsert | History, rows: DataFrame, batch: Mapping[str, Any], again: bool = False
) -> None:
    """Keep the keys and versions that a batch deletes, in the place of what an earlier attempt kept. One Spark job.

    Args:
        batch: what the records say besides: job, flow, query_id, batch_id, deleted_at.
        again: whether an earlier attempt at this batch may have left some: it never reached the target, and what deletes a
            row may have changed since.
    """
    import pyarrow as pa

    version = exact.columns_to_json(target.newest_by)
    newest = F.max_by(version, F.struct(*[f"`{name}`" for name in target.newest_by]))
    found = (
        rows.where(are(target)).groupBy(exact.columns_to_json(target.keys).alias("key")).agg(newest.alias("version"))
    )
    records = [{**batch, **each, "table": target.table} for each in found.toArrow().to_pylist()]
    stored = Table(warehouse, "ops.deletes")
    if records or (again and stored.exists()):
        these = f"query_id = {ops.literal(batch['query_id'])} AND batch_id = {ops.literal(batch['batch_id'])}"
        data = pa.Table.from_pylist(records, schema=ops.schema("deletes"))
        ops.write(stored, data, predicate=these if again else None)


def remembered(warehouse: str, target: Upsert | History, rows: DataFrame, now: datetime) -> DataFrame | None:
    """The remembered deletions of a target: its keys and `newest_by`, typed as in `rows`; None where there are none."""
    stored = Table(warehouse, "ops.deletes")
    if not target.newest_by or not stored.exists():
        return None
    kept = rows.sparkSession.read.format("delta").load(stored.path)
    kept = kept.where((F.col("table") == target.table) & (F.col("deleted_at") > F.lit(now - REMEMBERED)))
    key, version = (rows.select(*[f"`{name}`" for name in names]).schema for names in (target.keys, target.newest_by))
    parts = (F.from_json(name, kind, exact.OPTIONS).alias(name) for name, kind in (("key", key), ("version", version)))
    return kept.select(*parts).select("key.*", "version.*")


def without_older(target: Upsert, rows: DataFrame, deletions: DataFrame | None) -> DataFrame:
    """The rows but for those older than a remembered deletion of their key. No job of its own."""
    if deletions is None:
        return rows
    same = [F.col(f"r.`{name}`") == F.col(f"d.`{name}`") for name in target.keys]
    own, deleted = (F.struct(*[F.col(f"{side}.`{name}`") for name in target.newest_by]) for side in "rd")
    return rows.alias("r").join(deletions.alias("d"), [*same, own < deleted], "left_anti")
