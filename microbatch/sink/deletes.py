"""Deletions remembered: an older version of a deleted key that comes later must not bring the row back.

An upserted table forgets a key it deletes, and a History has no row for one that it never held. `ops.deletes` keeps key and
version (see `remembered`); what comes later with an older version is superseded.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from microbatch.job import History, Upsert
from microbatch.sink import exact, ops, remembered
from microbatch.sink.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

AS_OF = "_mb_as_of"  # beside a deletion that is read back: when the batch came that said it


def are(target: Upsert | History) -> Column:
    """True for a row that deletes its key."""
    return F.coalesce(F.expr(f"({target.delete_when})"), F.lit(False)) if target.delete_when else F.lit(False)


def remember(
    warehouse: str, target: Upsert | History, rows: DataFrame, batch: Mapping[str, Any], again: bool = False
) -> None:
    """Keep the keys that a batch deletes: of an Upsert's the newest deletion, of a History's each, for each ends an interval; but
    none that a row of the batch takes the place of, at the same time.

    Args:
        batch: what the records say besides: job, flow, query_id, batch_id, deleted_at.
        again: whether an earlier attempt at this batch may have left some (see `remembered.keep`).
    """
    version = exact.columns_to_json(target.newest_by)
    key, deleting = exact.columns_to_json(target.keys).alias("key"), are(target)
    if isinstance(target, History):
        found = rows.groupBy(key, version.alias("version")).agg(F.bool_and(deleting).alias("_all"))
        found = found.where("_all").drop("_all")
    else:
        order = F.struct(*[f"`{name}`" for name in target.newest_by])
        found = rows.where(deleting).groupBy(key).agg(F.max_by(version, order).alias("version"))
    remembered.keep(warehouse, "deletes", found, {**batch, "table": target.table}, again)


def forget(warehouse: str, target: Upsert | History, rows: DataFrame | None) -> None:
    """Forget the deletions of a target that is told anew, by whatever transform they were said: those of the keys in `rows`, or
    all of them."""
    stored = Table(warehouse, "ops.deletes")
    if rows is None or not stored.exists():
        ops.forget(warehouse, "deletes", target.table)
        return
    found = rows.sparkSession.read.format("delta").load(stored.path).where(F.col("table") == target.table)
    stay = found.join(rows.select(exact.columns_to_json(target.keys).alias("key")), "key", "left_anti")
    remembered.only(stay, warehouse, "deletes", target.table)


def known(
    warehouse: str, target: Upsert | History, rows: DataFrame, now: datetime, but: Mapping[str, Any]
) -> DataFrame | None:
    """The remembered deletions of a target but for those of batch `but`: its keys and `newest_by`, typed as in `rows`, and
    `AS_OF`; None where there are none."""
    if not target.newest_by:
        return None
    found = remembered.kept(rows.sparkSession, warehouse, "deletes", target.table, now, but)
    if found is None:
        return None
    key, version = (rows.select(*[f"`{name}`" for name in names]).schema for names in (target.keys, target.newest_by))
    parts = (F.from_json(name, kind, exact.OPTIONS).alias(name) for name, kind in (("key", key), ("version", version)))
    return found.select(*parts, F.col("deleted_at").alias(AS_OF)).select("key.*", "version.*", AS_OF)


def without_older(target: Upsert, rows: DataFrame, deletions: DataFrame | None) -> DataFrame:
    """The rows but for those older than a remembered deletion of their key. No job of its own."""
    if deletions is None:
        return rows
    same = [F.col(f"r.`{name}`") == F.col(f"d.`{name}`") for name in target.keys]
    own, deleted = (F.struct(*[F.col(f"{side}.`{name}`") for name in target.newest_by]) for side in "rd")
    return rows.alias("r").join(deletions.alias("d"), [*same, own < deleted], "left_anti")
