"""One batch, five steps: keep, shape, judge, divert, write. The heart of the engine.

A batch is evaluated once: the pass that pins it counts it, judges it and finds its bounds, before anything is written.
Letters first, then the target, then the ledger, and the target's commit decides: killed anywhere, the next run ends in the
same tables. Nothing here catches what it does not understand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from pyspark.sql import Observation
from pyspark.sql import functions as F

from microbatch import faults, quarantine
from microbatch.errors import ExpectationStopped, SnapshotUnavailable, StateChanged, TransformBroken
from microbatch.job import History, Upsert, snapshots_of
from microbatch.outcome import ONLY_THE_COMMIT_KNOWS, Outcome, Result, masks
from microbatch.sink import deletes, exact, history, ops, small, targets
from microbatch.sink.tables import ORDER, Table
from microbatch.sink.tables import outcome_of as outcome_of_commit
from microbatch.sources import snapshots
from microbatch.sources.files import Files, unreadable
from microbatch.sources.input import NEWEST
from microbatch.sources.record import Record
from microbatch.sources.tables import CHANGES, TableInput, offsets
from microbatch.surrender import surrender
from microbatch.work import Judged, Kept, Work, file_letters, origin_of, outcome_of

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession


def process(work: Work, batch: DataFrame, batch_id: int) -> Outcome:
    """Take one micro-batch in: once, whatever happened to earlier attempts at it.

    Raises:
        ExpectationStopped: a table-level critical expectation failed; nothing was written.
        TransformBroken: the transform raised, or changed the number of rows; nothing was written.
        RuleBroken: an expectation or a `delete_when` raised over a row; nothing was written.
        StateChanged: a file of the batch vanished or changed.
    """
    if batch_id <= work.committed and (done := committed(work, batch_id)):
        return done
    kept = keep(work, batch, batch_id)
    if batch_id == work.give_up:
        return give_up(work, kept, batch.sparkSession)
    judged, kept = pin(work, kept, batch.sparkSession)
    replaced = _replaced(work, kept)
    divert(work, kept, judged)
    outcome = write(replace(work, letters=replaced), kept, judged)
    _close(work, outcome)
    return outcome


def committed(work: Work, batch_id: int) -> Outcome | None:
    """The outcome of a batch that is done: in the target already, with its ledger row made up for, or in the ledger, where the
    batch had nothing to write. None where it is in neither."""
    for commit in work.target.commits():
        outcome = outcome_of_commit(commit)
        if outcome and (outcome.query_id, outcome.batch_id) == (work.query_id, batch_id):
            ops.record(work.warehouse, outcome)
            _close(work, outcome)
            return outcome
    return ops.outcome(work.warehouse, work.query_id, batch_id)


def give_up(work: Work, kept: Kept, spark: SparkSession) -> Outcome:
    """Send the whole batch to quarantine, because somebody said so: its rows, and the files that have none to be read."""
    try:
        return surrender(work, kept)
    except Exception as cause:
        if broken := _unread(work, kept, spark, cause):
            return give_up(work, _read(work, kept, {**kept.broken, **broken}, spark), spark)
        raise


def keep(work: Work, batch: DataFrame, batch_id: int) -> Kept:
    """Hold the input fast: which offsets, which files, which groups."""
    spark, started = batch.sparkSession, work.now()
    start, end = offsets(work.checkpoint, batch_id - 1), offsets(work.checkpoint, batch_id)
    held = Kept(batch_id, started, start, end, batch, None)
    if isinstance(work.input, Files):
        after = json.loads(start)["logOffset"] if start else -1
        files = tuple(work.input.files(batch_id, after, json.loads(end)["logOffset"]))
        newest = max((file.modified_ms for file in files), default=0)
        held = replace(held, files=files, newest_at=_iso(newest) if newest else None)
        return _read(work, held, work.input.suspicious(spark, list(files)), spark)
    if isinstance(work.input, TableInput) and (newest_ms := work.input.newest_at()):
        held = replace(held, newest_at=_iso(newest_ms))
    work.reached("keep", batch_id)
    if not isinstance(work.input, TableInput) or not work.flow.recompute_by:
        return _counted(replace(held, rows=work.input.rows(batch)))
    changes = Observation("changes")
    groups = work.input.groups(batch).observe(
        changes, F.sum(CHANGES).alias("changes"), F.count(F.lit(1)).alias("groups")
    )
    pinned = groups.localCheckpoint(eager=True)
    found = changes.get
    rows = work.input.of_groups(spark, pinned, found["groups"], end)
    return replace(held, rows=rows, groups=pinned, changes=found["changes"] or 0)


def shape(work: Work, kept: Kept, spark: SparkSession) -> DataFrame:
    """The transform over what parsed: the target's columns and `_row`, the input of each row."""
    rows = kept.rows
    if kept.groups is None:
        rows = rows.where("_unparsed IS NULL").drop("_unparsed", "_problem", NEWEST)
    transform = work.flow.transform
    if transform is None:
        return rows
    wanted = snapshots_of(work.flow)
    frames = {n: snapshots.read(spark, work.warehouse, work.flow.name, wanted[n], work.now()) for n in wanted}
    try:
        if kept.groups is not None:
            shaped = transform(rows.drop("_row"), **frames)
            return shaped.withColumn(
                "_row", F.struct("*")
            )  # a group's letter holds the output row: its input is a whole group
        return transform(rows, **frames)
    except Exception as cause:  # whatever a user's function raises is a fault of that function
        raise faults.broken(work, kept.batch_id, cause) from cause


def judge(work: Work, shaped: DataFrame, counts: Observation) -> DataFrame:
    """Each row with its failed rules as a bit mask; counts, bounds and table-level numbers ride in the same pass."""
    plan = work.shape.plan
    judged = plan.judge(shaped)
    leaves = plan.leaves
    row = quarantine.input_of(judged)
    if quarantine.is_ordered(judged):
        judged = judged.withColumn(ORDER, F.col("_row")[ORDER])
    judged = judged.withColumn("_row", F.when(leaves, row))  # only a row that leaves needs its input any more
    return judged.observe(
        counts,
        F.count(F.lit(1)).alias("transformed"),
        F.count(F.when(leaves, 1)).alias("leaving"),
        F.count(F.when(_deleting(work) & ~leaves, 1)).alias("deleting"),
        *_bounds(work, leaves),
        F.sum(small.width(work.shape.output)).alias("text"),
        F.sum(F.when(leaves, quarantine.size(judged, work.shape.output))).alias("leaving_bytes"),
        *plan.metrics(),
    )


def pin(work: Work, kept: Kept, spark: SparkSession) -> tuple[Judged, Kept]:
    """Run the pass. A file that cannot be read is put aside, once, and the rest goes on."""
    counts = Observation("judged")
    try:
        pinned = judge(work, shape(work, kept, spark), counts).localCheckpoint(eager=True)
    except (ExpectationStopped, TransformBroken, SnapshotUnavailable, StateChanged):
        raise
    except Exception as cause:
        if broken := _unread(work, kept, spark, cause):
            return pin(work, _read(work, kept, {**kept.broken, **broken}, spark), spark)
        if (raised := faults.raised(cause)) is not None:
            if faults.comes_out(shape(work, kept, spark)):
                raise faults.broken_rule(work, kept.batch_id, raised) from cause
            if work.flow.transform is not None:
                raise faults.broken(work, kept.batch_id, cause, raised) from cause
        raise
    found = counts.get
    read = kept.count.get if kept.count else {"read": kept.changes, "unparsed": 0}
    if read.get("newest") is not None:
        kept = replace(kept, newest_at=_iso(read["newest"]))
    judged = Judged(
        rows=pinned,
        read=read["read"],
        unparsed=read["unparsed"],
        transformed=found["transformed"],
        leaving=found["leaving"],
        deleting=found["deleting"],
        bounds={key: (found[f"_low_{key}"], found[f"_high_{key}"]) for key in _bounded(work)},
        text_bytes=found["text"] or 0,
        letter_bytes=(found["leaving_bytes"] or 0) + (read.get("unparsed_bytes") or 0),
        results=results_of(work, pinned, found),
    )
    _hold_rows(work, kept, judged, spark)
    refuse_stops(work, kept.batch_id, judged.results)
    work.reached("judge", kept.batch_id)
    return judged, kept


def refuse_stops(work: Work, batch_id: int, results: tuple[Result, ...]) -> None:
    """Stop where a critical rule over the whole batch failed, before anything is written.

    Raises:
        ExpectationStopped: with a sentence for each such rule.
    """
    stops = work.shape.plan.stops(results)
    if stops:
        raise ExpectationStopped(work.flow.name, batch_id, tuple(stops))


def divert(work: Work, kept: Kept, judged: Judged) -> None:
    """The letters of what leaves: rows with their reasons, text that did not parse, files that could not be read."""
    plan, letters = work.shape.plan, []
    if judged.leaving:
        letters.append(quarantine.of_rows(judged.rows, plan.leaves, plan.reasons(), work.mask))
    if judged.unparsed:
        letters.append(quarantine.of_text(kept.rows, work.mask))
    again = kept.batch_id <= work.planned
    count = judged.leaving + judged.unparsed
    quarantine.write(origin_of(work, kept), letters, count, judged.letter_bytes, file_letters(kept), again)
    if kept.broken:
        Record(work.checkpoint).forgive(kept.batch_id, kept.broken)
    work.reached("letters", kept.batch_id)


def write(work: Work, kept: Kept, judged: Judged) -> Outcome:
    """One commit to the target, keyed by query id and batch id, with the counts in it; then the ledger."""
    target, rows, groups = work.flow.writes, good(work, judged), kept.groups
    batch = {"job": work.job, "flow": work.flow.name, "query_id": work.query_id, "batch_id": kept.batch_id}
    again, now = kept.batch_id <= work.planned, work.now()
    changes = bool(judged.transformed or (kept.groups is not None and kept.changes))
    written, deletions = judged.transformed - judged.leaving, None
    few = small.is_small(judged.transformed, judged.text_bytes, work.shape.output)
    if changes and isinstance(target, Upsert | History):
        if target.delete_when and target.newest_by and (judged.deleting or again):
            deletes.remember(work.warehouse, target, rows, {**batch, "deleted_at": now}, again)
        if isinstance(target, History):
            groups = rows.select(*_quoted([*target.keys])).distinct()
            told = history.of_batch(work.warehouse, work.target, target, rows, batch, now, again)
            rows, written, few = told.rows, told.written, told.few
        elif target.delete_when:
            deletions = deletes.known(work.warehouse, target, rows, now, batch)
    written = ONLY_THE_COMMIT_KNOWS if isinstance(target, Upsert) else written
    outcome = outcome_of(work, kept, judged, written)
    if changes:
        commit = targets.Commit(work.query_id, kept.batch_id, outcome.to_json(), judged.bounds, work.properties)
        work.reached("deletes", kept.batch_id)
        targets.write(target, work.target, rows, commit, groups, deletions, few)
        work.reached("target", kept.batch_id)
        took_ms = int((work.now() - kept.started).total_seconds() * 1000)
        outcome = replace(of_commit(work, outcome), duration_ms=took_ms)
    outcome = replace(outcome, rows_written=max(0, outcome.rows_written))
    if not outcome.lawful():
        raise StateChanged(
            work.flow.name,
            f"batch {kept.batch_id} does not add up: {outcome}",
            "this is a fault of the engine; report it",
        )
    ops.record(work.warehouse, outcome)
    work.reached("ledger", kept.batch_id)
    return outcome


def good(work: Work, judged: Judged) -> DataFrame:
    """The rows that stay, with the columns of the transform and none of the engine's but, for an Upsert, `ORDER`."""
    rows = judged.rows.where(~work.shape.plan.leaves) if judged.leaving else judged.rows
    order = [ORDER] if ORDER in rows.columns and isinstance(work.flow.writes, Upsert) else []
    return rows.select(*_quoted(work.shape.output.fieldNames()), *order)


def _replaced(work: Work, kept: Kept) -> tuple[str, ...]:
    """The letters of earlier batches whose groups are made anew; whoever hides a key in them closes them himself."""
    if kept.groups is None or masks(work.mask, work.flow.recompute_by):
        return ()
    return quarantine.of_groups(origin_of(work, kept), kept.groups, work.flow.recompute_by)


def _close(work: Work, outcome: Outcome) -> None:
    """After the commit, which names them: killed in between, the next attempt finds them there."""
    quarantine.mark(Table(work.warehouse, quarantine.TABLE), outcome.letters, "replayed")


def _unread(work: Work, kept: Kept, spark: SparkSession, cause: Exception) -> Mapping[str, str]:
    """The files that made a pass fail because they cannot be read, and why; none where it failed for another reason."""
    if not isinstance(work.input, Files) or not unreadable(cause):
        return {}
    left = [file for file in kept.files if file.path not in kept.broken]
    return work.input.broken(spark, left) if left else {}


def _read(work: Work, kept: Kept, broken: Mapping[str, str], spark: SparkSession) -> Kept:
    assert isinstance(work.input, Files)
    good = [file for file in kept.files if file.path not in broken]
    kept = _counted(replace(kept, rows=work.input.rows(spark, good), broken=broken))
    work.reached("keep", kept.batch_id)
    return kept


def _counted(kept: Kept) -> Kept:
    count = Observation("read")
    unparsed = F.count(F.when(F.col("_unparsed").isNotNull(), 1)).alias("unparsed")
    size = F.sum(F.octet_length("_unparsed")).alias("unparsed_bytes")
    newest = [F.unix_millis(F.max(NEWEST)).alias("newest")] if NEWEST in kept.rows.columns else []
    rows = kept.rows.observe(count, F.count(F.lit(1)).alias("read"), unparsed, size, *newest)
    return replace(kept, rows=rows, count=count)


def results_of(work: Work, pinned: DataFrame, found: Mapping[str, Any]) -> tuple[Result, ...]:
    """The expectations' results; a batch with no rows is not judged."""
    if not found["transformed"]:
        return ()
    late = work.shape.plan.late()
    more = pinned.agg(*late).collect()[0].asDict() if late else {}  # distinct counts: Spark does not observe them
    return tuple(work.shape.plan.results({**found, **more}))


def _hold_rows(work: Work, kept: Kept, judged: Judged, spark: SparkSession) -> None:
    """A transform is row for row: as many come out as went in."""
    went_in, came_out = judged.read - judged.unparsed, judged.transformed
    if kept.groups is not None or went_in == came_out:
        return
    what = f"{went_in} rows went in and {came_out} came out"
    if came_out > went_in and (culprits := faults.multiplying(work, kept, came_out)):
        what += f": snapshot {', '.join(culprits)} has more than one row for a key it is joined by"
    raise faults.broken(work, kept.batch_id, None, what)


def of_commit(work: Work, outcome: Outcome) -> Outcome:
    """The outcome with what only its commit knows: the rows it changed, and its version."""
    for newest in (1, 20):  # it is the newest, but for one that somebody else made just then
        for commit in work.target.commits(newest):
            found = outcome_of_commit(commit)
            if found and (found.query_id, found.batch_id) == (outcome.query_id, outcome.batch_id):
                return found
    raise StateChanged(
        work.flow.name,
        f"batch {outcome.batch_id} was committed, and its commit is not in {work.target.name}",
        "run again",
    )


def _bounded(work: Work) -> list[str]:
    """The keys whose smallest and largest value in the batch keep a MERGE off the rest of the table's files."""
    plain = ("bigint", "int", "smallint", "date", "timestamp", "string")
    types = {column.name: column.dataType.simpleString() for column in work.shape.output}
    keys = work.flow.writes.keys if isinstance(work.flow.writes, Upsert | History) else ()
    return [key for key in keys if types[key] in plain]


def _deleting(work: Work) -> Column:
    """True for a row that deletes its key."""
    return deletes.are(work.flow.writes) if isinstance(work.flow.writes, Upsert | History) else F.lit(False)


def _bounds(work: Work, leaves: Column) -> list[Column]:
    made = []
    for key in _bounded(work):
        value, kind = F.when(~leaves, F.col(f"`{key}`")), work.shape.output[key].dataType
        made += [
            exact.carried(F.min(value), kind).alias(f"_low_{key}"),
            exact.carried(F.max(value), kind).alias(f"_high_{key}"),
        ]
    return made


def _iso(ms: int) -> str | None:
    """A time, or None for one that no calendar has: a producer may write microseconds where milliseconds are meant."""
    try:
        return datetime.fromtimestamp(ms / 1000, timezone.utc).isoformat()
    except (ValueError, OverflowError, OSError):
        return None


def _quoted(names: list[str]) -> list[str]:
    return [f"`{name}`" for name in names]
