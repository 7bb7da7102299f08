"""`microbatch preview`: what a flow would make of its next rows. Reads a bounded sample, without streaming; writes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from microbatch.checks.judging import Plan
from microbatch.commands.plan import many, shaped, without_secrets
from microbatch.commands.render import columns
from microbatch.config import LoadedJob, Suite
from microbatch.errors import SnapshotUnavailable, SourceUnavailable
from microbatch.job import Flow, Source, snapshots_of
from microbatch.retry import classify
from microbatch.runner.flows import checkpoint_of, input_of
from microbatch.sink.tables import Table
from microbatch.sources.files import Files, unreadable
from microbatch.sources.listing import File, Record, files_below, is_local
from microbatch.sources.tables import TableInput, end_version, last_offset

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from microbatch.shape import Shape

FILES = 5  # files that are opened
ROWS = 10_000  # rows that are judged: enough to meet a fault that one row in a thousand has
GROUPS = 3  # groups that a recomputing flow makes again
WIDEST_CELL = 28
WIDEST_INPUT = 300
HIDDEN = "***"


@dataclass(frozen=True)
class Sample:
    """Rows to look at, pinned.

    Attributes:
        rows: as a batch has them, with `_row` and, where they come from a source, `_unparsed` and `_problem`.
        of: where they are from, in words.
        complete: whether they are the whole of the next batch: then what is said of the table holds.
        broken: files that cannot be read, and why.
        groups: for a recomputing flow, the groups made again.
    """

    rows: DataFrame
    of: str
    complete: bool = False
    broken: Mapping[str, str] = field(default_factory=dict)
    groups: DataFrame | None = None


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
    try:
        sample = _sample(spark, suite, job, flow)
        judged = _judged(spark, suite, job, flow, shape, sample)
        said = list(_said(job, flow, shape, sample, judged, count))
    except Exception as cause:
        raise classify(cause, flow.name, 0) from cause
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


def _sample(spark: SparkSession, suite: Suite, job: LoadedJob, flow: Flow) -> Sample:
    input_ = input_of(suite, job, flow)
    if isinstance(input_, TableInput):
        return _of_table(spark, input_)
    return _of_files(spark, input_, job.conf.sources[input_.name].max_files_per_batch)  # type: ignore[attr-defined]


def _of_files(spark: SparkSession, input_: Files, batch: int | None) -> Sample:
    """The first files that are pending, else the newest there are."""
    if not is_local(input_.conf.path):
        found = [
            File(path, 0, 0) for path in spark.read.format("binaryFile").load(input_.conf.path).inputFiles()[:FILES]
        ]
        return _read(spark, input_, found, "the first files there are", complete=False)
    there = files_below(input_.name, input_.conf.path)
    pending = sorted((there[path] for path in there.keys() - Record(input_.checkpoint).all()), key=_age)
    chosen = pending[: min(FILES, batch or FILES)] or sorted(there.values(), key=_age)[-FILES:]
    of = (
        f"{many(len(chosen), 'file')} of {len(pending):,} pending"
        if pending
        else "the newest files; nothing is pending"
    )
    return _read(
        spark, input_, chosen, of, complete=bool(pending) and len(chosen) == min(len(pending), batch or len(pending))
    )


def _age(file: File) -> tuple[int, str]:
    return file.modified_ms, file.path


def _read(spark: SparkSession, input_: Files, files: Sequence[File], of: str, *, complete: bool) -> Sample:
    broken = input_.suspicious(list(files))
    for _ in range(2):  # a file that cannot be read is found by the first pass, and put aside
        good = [file for file in files if file.path not in broken]
        try:
            rows = input_.rows(spark, good).limit(ROWS).localCheckpoint(eager=True)
            return Sample(rows, of, complete and rows.count() < ROWS, broken)
        except Exception as cause:
            found = input_.broken(spark, good) if unreadable(cause) else {}
            if not found:
                raise
            broken = {**broken, **found}
    raise SourceUnavailable(input_.name, "its files change while they are read; try again")


def _of_table(spark: SparkSession, input_: TableInput) -> Sample:
    offset, pending = last_offset(input_.checkpoint), input_.pending()
    version = input_.table.open().version()
    since = end_version(offset) if offset and pending else None
    of = f"the newest rows of {input_.table.name}; {f'{many(pending, "version")} pending' if pending else 'nothing is pending'}"
    if input_.recompute_by:
        seeds = _newest(spark, input_.table, since).limit(ROWS).select(*[f"`{name}`" for name in input_.recompute_by])
        groups = seeds.distinct().limit(GROUPS).localCheckpoint(eager=True)
        end = json.dumps({"reservoirVersion": version, "index": 0})
        rows = input_.of_groups(spark, groups, GROUPS, end)
        return Sample(rows, f"every row of {GROUPS} groups of {input_.table.name}", groups=groups)
    if input_.changes and since is not None and since < version:
        feed = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", since + 1)
        rows, of = feed.load(input_.table.path), f"the pending changes of {input_.table.name}"
    else:
        rows = _newest(spark, input_.table, since)
        rows = _as_changes(rows, input_.table, version) if input_.changes else rows
    return Sample(input_.rows(rows.limit(ROWS)).localCheckpoint(eager=True), of)


def _newest(spark: SparkSession, table: Table, since: int | None) -> DataFrame:
    """The rows of the table's newest files, of those that came after version `since` where there are such."""
    import pyarrow as pa

    opened = table.open()
    whole = spark.read.format("delta").load(table.path)
    if opened.metadata().partition_columns:  # a part of its columns is in the names of its folders
        return whole
    added = pa.table(opened.get_add_actions(flatten=True)).select(["path", "modification_time"]).to_pylist()
    seen_ms = next((c["timestamp"] for c in table.commits() if c["version"] == since), 0)
    files = sorted(((_ms(each["modification_time"]), each["path"]) for each in added), reverse=True)
    chosen = [file for file in files if file[0] > seen_ms][:FILES] or files[:FILES]
    paths = [f"{table.path}/{path}" for _, path in chosen]
    return spark.read.schema(whole.schema).option("__globPaths__", "false").parquet(*paths) if paths else whole


def _ms(time: Any) -> int:
    return int(time.timestamp() * 1000) if isinstance(time, datetime) else int(time)


def _as_changes(rows: DataFrame, table: Table, version: int) -> DataFrame:
    """Rows as the change feed gives those that were there when a stream began: each is an insert."""
    from pyspark.sql import functions as F

    at = datetime.fromtimestamp(next(table.commits(1))["timestamp"] / 1000, timezone.utc)
    made = {"_change_type": "insert", "_commit_version": version, "_commit_timestamp": at}
    return rows.withColumns({name: F.lit(value) for name, value in made.items()})


def _judged(spark: SparkSession, suite: Suite, job: LoadedJob, flow: Flow, shape: Shape, sample: Sample) -> DataFrame:
    """The sample, transformed and judged as a batch would be, pinned."""
    from microbatch import batch

    work = batch.Work(
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
    kept = batch.Kept(0, datetime.now(timezone.utc), "", "", sample.rows, None, groups=sample.groups)
    return shape.plan.judge(batch.shape(work, kept, spark)).localCheckpoint(eager=True)


def _said(job: LoadedJob, flow: Flow, shape: Shape, sample: Sample, judged: DataFrame, count: int) -> list[str]:
    from pyspark.sql import functions as F

    from microbatch import quarantine

    plan, hidden = shape.plan, _hidden(job, flow)
    names = shape.output.fieldNames()
    numbers = judged.agg(F.count(F.lit(1)).alias("all"), F.count(F.when(plan.leaves, 1)).alias("leave")).first()
    total, leaving = (numbers["all"], numbers["leave"]) if numbers else (0, 0)
    texts = quarantine.of_text(sample.rows) if "_unparsed" in sample.rows.columns else None
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
            [*[_cell(row[n], n in hidden) for n in names], *([_messages(row["_reasons"])] if warned else [])]
            for row in staying
        ]
        said += ["", columns(head, rows)]
    said += _leaving(letters[:count], sample, hidden)
    return said


def _of_the_table(plan: Plan, judged: DataFrame) -> list[str]:
    """What the expectations say of the batch as a whole; only of a whole batch it means something."""
    found = judged.agg(*[each for each in (*plan.metrics(), *plan.late())]).first() if plan.metrics() else None
    if found is None:
        return []
    results = plan.results(found.asDict())
    stops, warnings = plan.stops(results), plan.warnings(results)
    return [*[f"would stop: {sentence}" for sentence in stops], *[f"would warn: {sentence}" for sentence in warnings]]


def _leaving(letters: Sequence[Any], sample: Sample, hidden: frozenset[str]) -> list[str]:
    said = [f"\n  file   {reason}\n         {path}" for path, reason in sample.broken.items()]
    for letter in letters:
        payload = _without(letter["payload"], hidden)
        reasons = "; ".join(f"{r['severity']}: {r['message']}" for r in letter["reasons"])
        said.append(f"\n  {letter['kind']:<5}  {reasons}\n         {_cut(payload, WIDEST_INPUT)}")
    return ["\nwould leave", *said] if said else []


def _hidden(job: LoadedJob, flow: Flow) -> frozenset[str]:
    return frozenset(job.conf.sources[flow.reads.name].mask) if isinstance(flow.reads, Source) else frozenset()


def _without(payload: str | None, hidden: frozenset[str]) -> str:
    """An input row without the values of masked columns; a text that cannot be taken apart is not shown at all."""
    if not hidden:
        return payload or ""
    try:
        data = json.loads(payload or "")
    except ValueError:
        return HIDDEN
    return json.dumps({k: HIDDEN if k in hidden else v for k, v in data.items()}) if isinstance(data, dict) else HIDDEN


def _cell(value: str | None, hidden: bool) -> str:
    if hidden and value is not None:
        return HIDDEN
    return "null" if value is None else _cut(value, WIDEST_CELL)


def _messages(reasons: Sequence[Any]) -> str:
    return "; ".join(reason["message"] for reason in reasons)


def _cut(text: str, widest: int) -> str:
    short = " ".join(text.split())
    return short if len(short) <= widest else f"{short[: widest - 1]}…"
