"""Slowly changing dimensions of type 2: the whole history of each key in a batch, worked out anew and put in place at once.

The versions of a key are events in time: those in the table, those in the batch, and deletions. Put in order they give the
intervals, so a version may come late, twice, or after its deletion: the table ends the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyspark.sql import functions as F
from pyspark.sql.window import Window, WindowSpec

from microbatch.job import History

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

VALID_FROM, VALID_TO, IS_CURRENT = "valid_from", "valid_to", "is_current"
ADDED = (VALID_FROM, VALID_TO, IS_CURRENT)
AT, DELETES, FRESH, PLACE = "_at", "_deletes", "_fresh", "_place"  # columns of an event


def written(rows: DataFrame, target: History) -> int:
    """How many of a batch's rows make history: one for each key and time; the others are superseded. One Spark job."""
    return rows.select(*_quoted([*target.keys, *target.newest_by])).distinct().count()


def intervals(
    rows: DataFrame, deletes: Column, target: History, stored: DataFrame | None, deletions: DataFrame | None
) -> DataFrame:
    """The whole history of the keys in `rows`.

    Args:
        rows: the batch's good rows: the target's columns but those of `ADDED`.
        deletes: true for a row that ends its key's interval.
        stored: the table as it is; None before its first commit.
        deletions: what is remembered of earlier deletions: keys and `newest_by`.

    Returns:
        Rows of the target: `rows`' columns and `ADDED`, every version of every key in `rows`, no others.
    """
    columns = rows.columns
    events = rows.withColumns({AT: F.col(f"`{target.newest_by[0]}`"), DELETES: deletes, FRESH: F.lit(1)})
    known = [_events(rows, target, stored)] if stored is not None else []
    if deletions is not None:
        mine = deletions.join(rows.select(*_quoted(target.keys)).distinct(), list(target.keys), "left_semi")
        known.append(mine.withColumns({AT: F.col(f"`{target.newest_by[0]}`"), DELETES: F.lit(True), FRESH: F.lit(0)}))
    for each in known:
        events = events.unionByName(each, allowMissingColumns=True)
    keys = _quoted(target.keys)
    order = [
        F.col(FRESH).desc(),
        F.xxhash64(*_quoted(columns)).desc(),
    ]  # the later batch wins; inside it, the row itself decides
    one_a_time = Window.partitionBy(*keys, AT).orderBy(*order)
    events = events.withColumn(PLACE, F.row_number().over(one_a_time)).where(f"{PLACE} = 1").drop(PLACE)
    in_time = Window.partitionBy(*keys).orderBy(F.col(AT).asc_nulls_first())
    events = events.withColumn(PLACE, F.sum(_opens(target, columns, in_time)).over(in_time))
    # What follows without a change belongs to the same version: it began with the first, and looks like the last.
    version = events.groupBy(*keys, PLACE).agg(
        F.min(AT).alias(AT), F.max_by(F.struct(*_quoted(columns), DELETES), F.struct(AT)).alias("_last")
    )
    flat = version.select(AT, "_last.*")
    ends = F.lead(AT).over(in_time)
    return (
        flat.withColumns({VALID_FROM: F.col(AT), VALID_TO: ends, IS_CURRENT: ends.isNull()})
        .where(f"NOT {DELETES}")
        .select(*_quoted(columns), *ADDED)
    )


def _events(rows: DataFrame, target: History, stored: DataFrame) -> DataFrame:
    """What the table knows of these keys: its versions, and the deletions its closed intervals end with."""
    keys = _quoted(target.keys)
    mine = stored.join(rows.select(*keys).distinct(), list(target.keys), "left_semi")
    versions = mine.withColumns({AT: F.col(VALID_FROM), DELETES: F.lit(False), FRESH: F.lit(0)})
    next_ = F.lead(VALID_FROM).over(Window.partitionBy(*keys).orderBy(F.col(VALID_FROM).asc_nulls_first()))
    closed = (
        mine.withColumn("_next", next_).where(f"{VALID_TO} IS NOT NULL AND NOT ({VALID_TO} <=> _next)").drop("_next")
    )
    ended = closed.withColumns({AT: F.col(VALID_TO), DELETES: F.lit(True), FRESH: F.lit(0)})
    return versions.unionByName(ended).drop(*ADDED)


def _opens(target: History, columns: Sequence[str], in_time: WindowSpec) -> Column:
    """1 where an event begins something new: the first of its key, a deletion, one after a deletion, or a change."""
    fixed = {*target.keys, *target.newest_by}
    tracked = _quoted(target.track or [name for name in columns if name not in fixed])
    state = F.struct(F.col(DELETES), *tracked)
    before = F.lag(F.struct(F.lit(1).alias("there"), state.alias("state"))).over(in_time)
    same = before.isNotNull() & F.to_json(before["state"]).eqNullSafe(F.to_json(state)) & ~F.col(DELETES)
    return F.when(same, 0).otherwise(1)


def _quoted(names: Sequence[str]) -> list[str]:
    return [f"`{name}`" for name in names]
