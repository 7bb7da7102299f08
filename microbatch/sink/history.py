"""Slowly changing dimensions of type 2: the whole history of each key in a batch, worked out anew and put in place at once.

The versions of a key are events in time: those in the table, those in the batch, deletions, and what is remembered because the
table cannot show it. Put in order they give the intervals, so a version may come late, twice, or after its deletion: the table
ends the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pyspark.sql import Observation
from pyspark.sql import functions as F
from pyspark.sql.window import Window, WindowSpec

from microbatch.job import History
from microbatch.sink import deletes, exact, ops, remembered, small
from microbatch.sink.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

VALID_FROM, VALID_TO, IS_CURRENT = "valid_from", "valid_to", "is_current"
ADDED = (VALID_FROM, VALID_TO, IS_CURRENT)
# Columns of an event: when it is, whether it deletes, where it is from, since when that is known, and which version it is in.
AT, DELETES, FROM, SINCE, PLACE = "_mb_at", "_mb_deletes", "_mb_from", "_mb_since", "_mb_place"
# Of two events at one time the one from further up counts. GUESS is the first of a version that looks like its last.
BATCH, TABLE, MEMORY, GUESS = 3, 2, 1, 0
FIRST, LAST, NEXT, SHOWN = "_mb_first", "_mb_last", "_mb_next", "_mb_shown"
PAYLOAD = "_mb_payload"  # beside a remembered version that is read back: its text


@dataclass(frozen=True)
class Told:
    """The history of the keys of a batch.

    Attributes:
        rows: pinned; the target's rows, every version of every key in the batch, no others.
        few: whether `rows` may pass through the driver (see `small`).
        written: how many of the batch's rows make history: one for each key and time; the others are superseded.
        unchanged: events of batch and table that `rows` does not show, and that nobody remembers yet: the batch's columns.
        forgotten: how many these are.
    """

    rows: DataFrame
    few: bool
    written: int
    unchanged: DataFrame
    forgotten: int


def tell(rows: DataFrame, target: History, stored: DataFrame | None, known: Sequence[DataFrame] = ()) -> Told:
    """The whole history of the keys in `rows`. One Spark job.

    Args:
        rows: the batch's good rows: the target's columns but those of `ADDED`.
        stored: the table as it is; None before its first commit.
        known: events that are remembered, deletions and versions.
    """
    columns, keys = rows.columns, _quoted(target.keys)
    events = rows.withColumns(_event(_at(target), deletes.are(target), BATCH))
    for each in [*([_of_table(rows, target, stored)] if stored is not None else []), *known]:
        events = events.unionByName(each, allowMissingColumns=True)
    # The later batch wins; inside it a row over its deletion, for a rewritten group says both; then the row itself decides.
    order = [
        F.col(FROM).desc(),
        F.col(SINCE).desc_nulls_last(),
        F.col(DELETES).asc(),
        *exact.order_of(events.select(*_quoted(columns))),
    ]
    one_a_time = Window.partitionBy(*keys, AT).orderBy(*order)
    events = events.withColumn(PLACE, F.row_number().over(one_a_time)).where(f"{PLACE} = 1")
    in_time = Window.partitionBy(*keys).orderBy(F.col(AT).asc_nulls_first())
    events = events.withColumn(PLACE, F.sum(_opens(target, columns, in_time)).over(in_time))
    # What follows without a change belongs to the same version: it began with the first, and looks like the last.
    events = events.withColumns(
        {
            FIRST: F.first(AT).over(Window.partitionBy(*keys, PLACE).orderBy(F.col(AT).asc_nulls_first())),
            LAST: ~F.lead(PLACE).over(in_time).eqNullSafe(F.col(PLACE)),
            NEXT: F.lead(AT).over(in_time),
        }
    )
    counts, hidden = Observation("history"), ~F.col(LAST) & (F.col(FROM) >= TABLE)
    visible = F.col(LAST) & ~F.col(DELETES)
    events = events.observe(
        counts,
        F.count(F.when(F.col(FROM) == BATCH, 1)).alias("written"),
        F.count(F.when(hidden, 1)).alias("forgotten"),
        F.count(F.when(visible, 1)).alias("shown"),
        F.sum(F.when(visible, small.width(rows.schema))).alias("text"),
    )
    # Pinned: a MERGE reads its source twice, and this one is made out of the MERGE's own target.
    events = events.where(f"NOT {DELETES}").localCheckpoint(eager=True)
    ends = F.col(NEXT)
    shown = events.where(LAST).withColumns({VALID_FROM: F.col(FIRST), VALID_TO: ends, IS_CURRENT: ends.isNull()})
    unchanged = events.where(hidden).select(*_quoted(columns))
    found = counts.get
    told = shown.select(*_quoted(columns), *ADDED)
    few = small.is_small(found["shown"], found["text"] or 0, told.schema)
    return Told(told, few, found["written"], unchanged, found["forgotten"])


def of_batch(
    warehouse: str, table: Table, target: History, rows: DataFrame, batch: Mapping[str, Any], now: datetime, again: bool
) -> Told:
    """Tell the history of a batch's keys with all that is known of them, and keep what it does not show.

    Args:
        rows: the batch's good rows, pinned.
        batch: job, flow, query_id, batch_id.
        again: whether an earlier attempt at this batch may have left something to remember.
    """
    stored = rows.sparkSession.read.format("delta").load(table.path) if table.exists() else None
    gone = _gone(warehouse, target, rows, now, batch)
    told = tell(rows, target, stored, [*gone, *_unchanged(warehouse, target, rows, gone, stored, now, batch)])
    remember(warehouse, target, told, {**batch, "kept_at": now}, again)
    return told


def remember(warehouse: str, target: History, told: Told, batch: Mapping[str, Any], again: bool) -> None:
    """Keep the versions after which nothing changed (see `remembered.keep`); no job where there are none.

    Args:
        batch: what the records say besides: job, flow, query_id, batch_id, kept_at.
    """
    if told.forgotten or again:
        key, payload = exact.columns_to_json(target.keys), exact.columns_to_json(told.unchanged.columns)
        records = told.unchanged.select(key.alias("key"), payload.alias("payload"))
        remembered.keep(warehouse, "unchanged", records, {**batch, "table": target.table}, again)


def forget(warehouse: str, target: History, rows: DataFrame, where: str | None) -> None:
    """Forget the versions of a target that are told anew: those `where` is true for, or all of them.

    Args:
        rows: what is told anew; its columns are those of the remembered versions.
    """
    stored = Table(warehouse, "ops.unchanged")
    if where is None or not stored.exists():
        ops.forget(warehouse, "unchanged", target.table)
        return
    found = rows.sparkSession.read.format("delta").load(stored.path).where(F.col("table") == target.table)
    told = found.select(F.col("payload").alias(PAYLOAD), F.from_json("payload", rows.schema, exact.OPTIONS).alias("_"))
    these = told.select(PAYLOAD, "_.*").where(where).select(PAYLOAD).distinct()
    stay = found.join(these, F.col("payload") == F.col(PAYLOAD), "left_anti")
    remembered.only(stay, warehouse, "unchanged", target.table)


def _gone(warehouse: str, target: History, rows: DataFrame, now: datetime, but: Mapping[str, Any]) -> list[DataFrame]:
    """The remembered deletions of the keys in `rows`, as events."""
    found = deletes.known(warehouse, target, rows, now, but) if target.delete_when else None
    if found is None:
        return []
    mine = found.join(rows.select(*_quoted(target.keys)).distinct(), list(target.keys), "left_semi")
    return [mine.withColumns(_event(_at(target), F.lit(True), MEMORY, F.col(deletes.AS_OF))).drop(deletes.AS_OF)]


def _unchanged(
    warehouse: str,
    target: History,
    rows: DataFrame,
    gone: list[DataFrame],
    stored: DataFrame | None,
    now: datetime,
    but: Mapping[str, Any],
) -> list[DataFrame]:
    """The remembered versions, as events, of those keys in `rows` of which a version comes late: others need none.

    A remembered deletion comes each time, so late too: it may have lost to a version that the table shows no more.
    """
    spark = rows.sparkSession
    found = remembered.kept(spark, warehouse, "unchanged", target.table, now, but) if stored is not None else None
    if found is None or stored is None:
        return []
    keys, at = _quoted(target.keys), _at(target)
    there = stored.select(*keys, at.alias(SHOWN))
    coming = rows.select(*keys, at.alias(AT))
    for each in gone:
        coming = coming.unionByName(each.select(*keys, AT))
    late = coming.join(there, list(target.keys)).where(f"{AT} IS NULL OR {AT} <= {SHOWN}")
    # Where nothing is late Spark sees an empty side, and does not read the other one.
    texts = late.select(exact.columns_to_json(target.keys).alias("key")).distinct()
    mine = found.join(F.broadcast(texts), "key", "left_semi")
    events = mine.select(F.from_json("payload", rows.schema, exact.OPTIONS).alias("row"), "kept_at")
    events = events.select("row.*", F.col("kept_at").alias(SINCE))
    return [events.withColumns(_event(at, F.lit(False), MEMORY, F.col(SINCE)))]


def _of_table(rows: DataFrame, target: History, stored: DataFrame) -> DataFrame:
    """What the table knows of these keys: of each version the last event and the time of the first, and the deletions that
    closed intervals end with."""
    keys = _quoted(target.keys)
    mine = stored.join(rows.select(*keys).distinct(), list(target.keys), "left_semi")
    following = F.lead(VALID_FROM).over(Window.partitionBy(*keys).orderBy(F.col(VALID_FROM).asc_nulls_first()))
    at, first, end = _at(target), F.col(VALID_FROM), F.col(VALID_TO)

    def event(at: Column, gone: bool, origin: int) -> Column:
        return F.struct(at.alias(AT), F.lit(gone).alias(DELETES), F.lit(origin).alias(FROM))

    events = F.array(
        event(at, False, TABLE),
        F.when(~first.eqNullSafe(at), event(first, False, GUESS)),
        F.when(end.isNotNull() & ~end.eqNullSafe(F.col(NEXT)), event(end, True, TABLE)),
    )
    wide = mine.withColumn(NEXT, following).select(*mine.columns, F.inline(F.array_compact(events)))
    newest = target.newest_by[0]
    guessed = F.when(F.col(FROM) == GUESS, F.col(AT)).otherwise(F.col(f"`{newest}`"))
    return wide.withColumns({newest: guessed, SINCE: F.lit(None).cast("timestamp")}).drop(*ADDED)


def _event(at: Column, gone: Column, origin: int, since: Column | None = None) -> dict[str, Column]:
    when = since if since is not None else F.lit(None).cast("timestamp")
    return {AT: at, DELETES: gone, FROM: F.lit(origin), SINCE: when}


def _at(target: History) -> Column:
    return F.col(f"`{target.newest_by[0]}`")


def _opens(target: History, columns: Sequence[str], in_time: WindowSpec) -> Column:
    """1 where an event begins something new: the first of its key, a deletion, one after a deletion, or a change."""
    fixed = {*target.keys, *target.newest_by}
    tracked = _quoted(target.track or [name for name in columns if name not in fixed])
    state = F.struct(F.col(DELETES), *tracked)
    before = F.lag(F.struct(F.lit(1).alias("there"), state.alias("state"))).over(in_time)
    same = before.isNotNull() & exact.to_json(before["state"]).eqNullSafe(exact.to_json(state)) & ~F.col(DELETES)
    return F.when(same, 0).otherwise(1)


def _quoted(names: Sequence[str]) -> list[str]:
    return [f"`{name}`" for name in names]
