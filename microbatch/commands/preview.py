"""`microbatch preview`: what a flow would make of its next rows. Reads a bounded sample, without streaming; writes nothing."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from microbatch.checks.judging import Plan
from microbatch.commands import sampling
from microbatch.commands.plan import many, shaped, without_secrets
from microbatch.commands.render import columns
from microbatch.commands.sampling import Sample
from microbatch.config import LoadedJob, Suite
from microbatch.errors import BatchFailed, MicrobatchError, SnapshotUnavailable, SourceUnavailable
from microbatch.job import Flow, snapshots_of, tables_read
from microbatch.outcome import HIDDEN
from microbatch.retry import classify
from microbatch.runner.columns import traced
from microbatch.runner.inputs import checkpoint_of, input_of
from microbatch.sink.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from microbatch.shape import Shape

WIDEST_CELL = 28
WIDEST_INPUT = 300


def execute(suite: Suite, job: LoadedJob, flow: Flow, count: int = 20) -> int:
    """Print `count` rows as they would come out, and as many of those that would leave, with their reasons.

    Raises:
        SourceUnavailable: the source's folder or the table it reads is not there; says what to run first.
        SnapshotUnavailable: a dimension is missing.
        TransformBroken: the transform raised.
        ConfigError: the job has mistakes.
    """
    _refuse_missing(suite, flow)
    spark, shapes = shaped(suite, job)
    shape = shapes[job.name, flow.name]
    from microbatch.shape import plan_of

    hidden = _hidden(spark, suite, job, flow, shapes)
    if hidden.mask:
        shape = replace(shape, plan=plan_of(spark, job, flow, shape.output, tuple(hidden.of_output)))
    try:
        sample = sampling.sample(spark, suite, job, flow)
        judged = _judged(spark, suite, job, flow, shape, sample)
        said = list(_said(job, flow, shape, sample, judged, count, hidden))
    except MicrobatchError:
        raise
    except Exception as cause:
        error = classify(cause, flow.name, 0)
        if hidden.mask and isinstance(error, BatchFailed):
            raise BatchFailed(flow.name, 0, _hushed(cause)) from None
        raise error from cause
    print(without_secrets(suite, "\n".join(said)))
    return 0


def _refuse_missing(suite: Suite, flow: Flow) -> None:
    """Tables first, before a JVM is started for nothing."""
    warehouse = suite.environment.storage["warehouse"]

    def first(table: str) -> str:
        writer_job, writer = suite.writer_of(table)
        return f"the table is not there yet; first `microbatch run {writer_job} --flow {writer.name}`"

    if isinstance(flow.reads, str) and not Table(warehouse, flow.reads).exists():
        raise SourceUnavailable(flow.reads, first(flow.reads))
    for snapshot in snapshots_of(flow).values():
        if not Table(warehouse, snapshot.table).exists():
            raise SnapshotUnavailable(flow.name, snapshot.table, first(snapshot.table))


def _judged(spark: SparkSession, suite: Suite, job: LoadedJob, flow: Flow, shape: Shape, sample: Sample) -> DataFrame:
    """The sample, transformed and judged as a batch would be, pinned."""
    from microbatch import batch
    from microbatch.work import Kept, Work

    work = Work(
        warehouse=suite.environment.storage["warehouse"],
        job=job.name,
        flow=flow,
        shape=shape,
        input=input_of(suite, job, flow),
        checkpoint=checkpoint_of(suite, job, flow),
        query_id="",
        run_id="",
        suite_version=suite.version,
        committed=-1,
        planned=-1,
        properties={},
        reached=lambda step, batch_id: None,
    )
    kept = Kept(0, datetime.now(timezone.utc), "", "", sample.rows, None, groups=sample.groups)
    return shape.plan.judge(batch.shape(work, kept, spark)).localCheckpoint(eager=True)


def _said(
    job: LoadedJob, flow: Flow, shape: Shape, sample: Sample, judged: DataFrame, count: int, hidden: Hidden
) -> list[str]:
    from pyspark.sql import functions as F

    from microbatch import quarantine

    plan = shape.plan
    names = shape.output.fieldNames()
    numbers = judged.agg(F.count(F.lit(1)).alias("all"), F.count(F.when(plan.leaves, 1)).alias("leave")).first()
    total, leaving = (numbers["all"], numbers["leave"]) if numbers else (0, 0)
    texts = quarantine.of_text(sample.rows, hidden.mask) if "_unparsed" in sample.rows.columns else None
    unparsed = texts.count() if texts is not None else 0
    # As text by Spark, whose clock is UTC: Python would turn a timestamp into the time of this machine's zone.
    texts_of = [F.col(f"`{name}`").cast("string").alias(name) for name in names]
    staying = judged.where(~plan.leaves).select(*texts_of, plan.reasons().alias("_reasons")).limit(count).collect()
    letters = quarantine.of_rows(judged, plan.leaves, plan.reasons()).limit(count).collect() if leaving else []
    letters += texts.limit(count).collect() if texts is not None and unparsed else []
    said = [
        f"{job.name}.{flow.name}: {many(total + unparsed, 'row')} looked at ({sample.of}): {total - leaving:,} would come out, "
        f"{leaving + unparsed:,} would leave"
    ]
    went_in = sample.rows.count() - unparsed
    if sample.groups is None and went_in != total:
        said.append(
            f"would stop: {went_in:,} rows went into the transform and {total:,} came out; it must be row for row"
        )
    if sample.complete and total:
        said += _of_the_table(plan, judged)
    if staying:
        warned = any(row["_reasons"] for row in staying)
        head = [*names, *(["warnings"] if warned else [])]
        rows = [
            [
                *[_cell(row[n], n.lower() in hidden.of_output) for n in names],
                *([_messages(row["_reasons"])] if warned else []),
            ]
            for row in staying
        ]
        said += ["", columns(head, rows)]
    said += _leaving(letters[:count], sample, hidden.of_output if flow.recompute_by else hidden.of_input)
    return said


def _of_the_table(plan: Plan, judged: DataFrame) -> list[str]:
    """What the expectations say of the batch as a whole; only of a whole batch it means something."""
    found = judged.agg(*numbers).first() if (numbers := [*plan.metrics(), *plan.late()]) else None
    if found is None:
        return []
    results = plan.results(found.asDict())
    stops, warnings = plan.stops(results), plan.warnings(results)
    return [*[f"would stop: {sentence}" for sentence in stops], *[f"would warn: {sentence}" for sentence in warnings]]


def _leaving(letters: Sequence[Any], sample: Sample, hidden: Collection[str]) -> list[str]:
    said = [f"\n  file   {reason}\n         {path}" for path, reason in sample.broken.items()]
    for letter in letters:
        payload = _without(letter["payload"], hidden) if letter["kind"] == "row" else letter["payload"]
        reasons = "; ".join(f"{r['severity']}: {r['message']}" for r in letter["reasons"])
        said.append(f"\n  {letter['kind']:<5}  {reasons}\n         {_cut(payload, WIDEST_INPUT)}")
    return ["\nwould leave", *said] if said else []


@dataclass(frozen=True)
class Hidden:
    """Which columns' values are not shown, by their names in lower case: Spark tells names apart without their case.

    Attributes:
        mask: as the job's sources give it.
        of_input, of_output: those columns, and those that are made of them in whatever way.
    """

    mask: tuple[str, ...] = ()
    of_input: frozenset[str] = frozenset()
    of_output: frozenset[str] = frozenset()


def _hidden(
    spark: SparkSession, suite: Suite, job: LoadedJob, flow: Flow, shapes: Mapping[tuple[str, str], Shape]
) -> Hidden:
    mask = job.mask
    if not mask:
        return Hidden()
    flows: list[Flow] = []
    read: set[str] = set()
    for each in reversed(job.flows):  # the flow, and those that make what it reads
        if each.name == flow.name or each.writes.table in read:
            flows.insert(0, each)
            read |= set(tables_read(each))
    named = {*(name.lower() for name in mask), "_rescued"}  # which may hold any field
    found: dict[str, set[str]] = {}
    for made in traced(spark, suite, job, flows, shapes):
        if any(column.lower() in named for _, column in (*made.inputs, *made.sources)):
            found.setdefault(made.table, set()).add(made.column.lower())
    of_input = found.get(flow.reads, set()) if isinstance(flow.reads, str) else set()
    return Hidden(mask, frozenset(named | of_input), frozenset(named | found.get(flow.writes.table, set())))


def _hushed(cause: Exception) -> str:
    """An error without its text, in which Spark quotes the value that it could not take."""
    condition = getattr(cause, "getCondition", lambda: None)()
    kind = f"{type(cause).__name__}{f' {condition}' if condition else ''}"
    return f"{kind}; the rest is not shown, because it may hold a masked value"


def _without(payload: str | None, hidden: Collection[str]) -> str:
    """An input row without the values of masked columns; a text that cannot be taken apart is not shown at all."""
    if not hidden:
        return payload or ""
    try:
        data = json.loads(payload or "")
    except ValueError:
        return HIDDEN
    return (
        json.dumps({k: HIDDEN if k.lower() in hidden else v for k, v in data.items()})
        if isinstance(data, dict)
        else HIDDEN
    )


def _cell(value: str | None, hidden: bool) -> str:
    if hidden and value is not None:
        return HIDDEN
    return "null" if value is None else _cut(value, WIDEST_CELL)


def _messages(reasons: Sequence[Any]) -> str:
    return "; ".join(reason["message"] for reason in reasons)


def _cut(text: str, widest: int) -> str:
    short = " ".join(text.split())
    return short if len(short) <= widest else f"{short[: widest - 1]}…"
