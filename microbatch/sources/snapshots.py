"""Snapshots: tables of the suite read whole, as of the start of a micro-batch."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from microbatch.errors import SnapshotUnavailable
from microbatch.job import Snapshot
from microbatch.sink.tables import HARMLESS, Table

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from pyspark.sql import DataFrame, SparkSession


def read(spark: SparkSession, warehouse: str, flow: str, wanted: Snapshot, now: datetime) -> DataFrame:
    """A dimension as of now, whole.

    Raises:
        SnapshotUnavailable: it is missing, too small or too old: an empty dimension is not a green run.
    """
    table = Table(warehouse, wanted.table)
    if not table.exists():
        raise SnapshotUnavailable(flow, wanted.table, "the table is not there yet; run the flow that writes it")
    opened = table.open()
    count = sum(opened.get_add_actions(flatten=True).column("num_records").to_pylist())
    if count < wanted.min_rows:
        raise SnapshotUnavailable(flow, wanted.table, f"it has {count} rows, {wanted.min_rows} are needed (min_rows)")
    if wanted.max_age_h is not None:
        age_h = now.timestamp() / 3600 - _changed_ms(opened) / 3_600_000
        if age_h > wanted.max_age_h:
            raise SnapshotUnavailable(
                flow, wanted.table, f"it is {age_h:.1f} h old, {wanted.max_age_h} are allowed (max_age_h)"
            )
    return spark.read.format("delta").option("versionAsOf", opened.version()).load(table.path)


def _changed_ms(opened: DeltaTable) -> int:
    """When a row of it was last changed [ms since 1970], or the oldest commit its log holds: upkeep makes no table newer."""
    commits: list[dict[str, Any]] = []
    for newest in (1, 10, None):  # mostly the first look is enough; a night's upkeep leaves three commits
        commits = opened.history(newest)
        changes = (commit for commit in commits if commit.get("operation") not in HARMLESS)
        if changed := next(changes, None):
            return int(changed["timestamp"])
    return int(commits[-1]["timestamp"])
