"""A target derived again: one commit, so that readers see the old table or the new one, never half.

An Upsert is merged with what was derived, and only rows that differ are touched: readers of its changes see true changes. The
other targets are overwritten.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from microbatch.job import Append, Replace, Target, Upsert
from microbatch.sink import deletes
from microbatch.sink.tables import Table
from microbatch.sink.targets import Commit, keyed, merge_into, newest

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def derived(target: Append | Upsert | Replace, rows: DataFrame) -> DataFrame:
    """What the target holds of these rows, pinned: the newest versions, or all of them; for a History see `history.tell`."""
    if isinstance(target, Upsert):
        rows = newest(rows, target).where(~deletes.are(target))
    return rows.localCheckpoint(eager=True)


def write(target: Target, table: Table, rows: DataFrame, commit: Commit, where: str | None) -> None:
    """Put `rows` in the place of the table's rows, or of those `where` is true for.

    Args:
        rows: as `derived` gives them; with `where`, only rows it is true for.
    """
    with keyed(rows.sparkSession, commit):
        if isinstance(target, Upsert):
            _merge(target, table, rows, where)
            return
        writer = rows.write.format("delta").mode("overwrite")
        writer = writer.option("replaceWhere", where) if where else writer
        if target.evolve == "add_columns":
            writer = writer.option("mergeSchema", "true")
        writer.save(table.path)


def _merge(target: Upsert, table: Table, rows: DataFrame, where: str | None) -> None:
    same = reduce(lambda a, b: a & b, [F.col(f"t.`{key}`") == F.col(f"s.`{key}`") for key in target.keys])
    values = {f"`{name}`": F.col(f"s.`{name}`") for name in rows.columns}
    differs = reduce(
        lambda a, b: a | b, [~F.col(f"t.`{name}`").eqNullSafe(F.col(f"s.`{name}`")) for name in rows.columns]
    )
    merge = merge_into(rows.sparkSession, table, rows, same)
    merge = merge.whenMatchedUpdate(differs, values).whenNotMatchedInsert(values=values)
    merge.whenNotMatchedBySourceDelete(F.expr(where) if where else None).execute()
