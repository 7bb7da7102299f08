"""`microbatch docs`: the page of a job in Markdown, from its code, its conf and its ledger, so that it cannot grow old."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from microbatch.checks import Entry
from microbatch.commands.plan import expectations, many, shaped, without_secrets
from microbatch.config import LoadedJob, Suite
from microbatch.job import Append, Flow, Replace, Source, snapshots_of
from microbatch.lineage import Column, Traced, trace
from microbatch.runner.standings import standings
from microbatch.sink import ops
from microbatch.sink.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from microbatch.commands.plan import Shapes


def execute(suite: Suite, job: LoadedJob) -> int:
    """Print the page.

    Raises:
        ConfigError: the job has mistakes: a page of it could not be true.
    """
    writers = {suite.writer_of(snapshot.table)[0] for flow in job.flows for snapshot in snapshots_of(flow).values()}
    spark, shapes = shaped(suite, job, *sorted(writers - {job.name}))
    print(without_secrets(suite, "\n".join(page(spark, suite, job, shapes))))
    return 0


def page(spark: SparkSession, suite: Suite, job: LoadedJob, shapes: Shapes) -> Iterator[str]:
    """The lines of the page."""
    yield f"## Pipeline: {job.name}"
    yield f"\n{job.doc or 'No docstring.'}"
    yield f"\nOwner: {job.conf.owner or 'nobody'}. Environment: {suite.env}. Suite version: {suite.version}."
    yield "\n### Sources\n"
    yield from _sources(suite, job)
    yield "\n### Transformations\n"
    for number, flow in enumerate(job.flows, 1):
        yield from _transformation(number, flow)
    yield "\n### Validation\n"
    yield from _validation(job)
    yield "\n### Destination\n"
    yield from _destination(suite, job)
    yield "\n### Orchestration\n"
    yield from _orchestration(job)
    yield "\n### Error handling\n"
    yield from _error_handling(job)
    yield "\n### Monitoring\n"
    yield from _monitoring(suite, job)
    yield "\n### Lineage\n"
    yield from _graph(suite, job)
    flows = [(flow, shapes[job.name, flow.name].input, shapes[job.name, flow.name].output) for flow in job.flows]
    tables = {suite.jobs[name].flow(flow).writes.table: shape.output for (name, flow), shape in shapes.items()}
    yield from _columns(trace(spark, flows, tables))


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """A Markdown table."""
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |"


def _sources(suite: Suite, job: LoadedJob) -> Iterator[str]:
    rows = []
    for flow in job.flows:
        if isinstance(flow.reads, Source):
            conf = job.conf.sources[flow.reads.name]
            said = (conf.frequency or "not said", conf.volume or "not said")
            rows.append((flow.reads.name, conf.kind, conf.place(suite.root), *said, flow.name))
    own = {flow.writes.table for flow in job.flows}
    read = dict.fromkeys(
        (table, flow.name)
        for flow in job.flows
        for table in (flow.reads, *(snapshot.table for snapshot in snapshots_of(flow).values()))
        if isinstance(table, str) and table not in own
    )
    rows += [(t, "table", f"of job {suite.writer_of(t)[0]}", "at each run of that job", "", by) for t, by in read]
    yield from _table(("Source", "Kind", "Where", "Frequency", "Volume", "Read by"), rows)


def _transformation(number: int, flow: Flow) -> Iterator[str]:
    reads = flow.reads.name if isinstance(flow.reads, Source) else flow.reads
    if flow.transform is None:
        yield f"{number}. `{flow.name}`: the rows of `{reads}` go to `{flow.writes.table}` as they are."
        return
    doc = inspect.getdoc(inspect.unwrap(flow.transform)) or "No docstring."
    name = f"{flow.transform.__module__}.{flow.transform.__name__}"
    looks_up = [f"`{snapshot.table}`" for snapshot in snapshots_of(flow).values()]
    inputs = f"`{reads}`{f' with {and_(looks_up)}' if looks_up else ''}"
    what, returns = _parts(doc)
    yield f"{number}. `{flow.name}` (`{name}`, {inputs} to `{flow.writes.table}`): {what}"
    if flow.recompute_by:
        yield f"\n   Every {', '.join(flow.recompute_by)} in which a row changed is made again from all its rows."
    if returns:
        yield f"\n   Gives: {returns}"
    yield ""


def _parts(doc: str) -> tuple[str, str]:
    """Of a docstring what it says first, and what it says of what comes back, each on one line."""
    parts: dict[str, list[str]] = {"": []}
    part = ""
    for line in doc.splitlines():
        if line.rstrip().endswith(":") and line.strip()[:-1] in (
            "Args",
            "Returns",
            "Raises",
            "Source",
            "Guarantee",
            "Note",
        ):
            part = line.strip()[:-1]
        parts.setdefault(part, []).append(line.strip())
    return " ".join(" ".join(parts[""]).split()), " ".join(" ".join(parts.get("Returns", [])[1:]).split())


def _validation(job: LoadedJob) -> Iterator[str]:
    rows = []
    for flow in job.flows:
        file = job.expectations.get(flow.name)
        why = [str(entry.meta.get("why", "")) for entry in file.entries] if file else []
        for at, (severity, columns, demand, kind) in enumerate(expectations(job, flow)):
            reason = why[at] if at < len(why) else "a null in a key matches nothing"
            rows.append(
                (flow.name, severity, columns, demand, f"`{kind}`" if kind.startswith("expect") else kind, reason)
            )
    if not rows:
        yield "Nothing is expected of the rows."
        return
    yield from _table(("Flow", "Severity", "Columns", "Demand", "Expectation", "Why"), rows)


def _destination(suite: Suite, job: LoadedJob) -> Iterator[str]:
    rows = []
    for flow in job.flows:
        target = flow.writes
        keys = ", ".join(getattr(target, "keys", ())) or "none"
        newest_by = ", ".join(getattr(target, "newest_by", ()))
        newest = f", newest by {newest_by}" if newest_by else ""
        layout = [f"partitioned by {', '.join(target.partition_by)}"] if target.partition_by else []
        layout += [f"clustered by {', '.join(target.cluster_by)}"] if target.cluster_by else []
        where = Table(suite.environment.storage["warehouse"], target.table).path
        shown = os.path.relpath(where, suite.root) if Path(where).is_relative_to(suite.root) else where
        rows.append((target.table, "Delta", _mode(flow), f"{keys}{newest}", "; ".join(layout) or "none", f"`{shown}`"))
    yield from _table(("Table", "Format", "Mode", "Keys", "Partitioning", "Where"), rows)


def _mode(flow: Flow) -> str:
    if isinstance(flow.writes, Append):
        return "append"
    if isinstance(flow.writes, Replace):
        return "replace whole groups"
    deletes = getattr(flow.writes, "delete_when", None)
    return f"{type(flow.writes).__name__.lower()}{f', a row deletes its key when `{deletes}`' if deletes else ''}"


def _orchestration(job: LoadedJob) -> Iterator[str]:
    schedule = job.conf.schedule
    if schedule is None:
        yield "- Schedule: on demand"
    else:
        yield f"- Schedule: cron `{schedule.cron}`, time zone {schedule.timezone}"
        yield f"- SLA: {f'{schedule.sla_m:g} minutes from the start of a run' if schedule.sla_m is not None else 'none'}"
        again = (
            f"{many(schedule.retries, 'time')}, {schedule.retry_delay_m:g} minutes apart"
            if schedule.retries
            else "none"
        )
        yield f"- Retries of a failed run: {again}"
        yield f"- Tasks: one for {'the job' if schedule.tasks == 'job' else 'each flow'}"
    yield f"- Command: `microbatch run {job.name}`; a run with nothing to do changes nothing"


def _error_handling(job: LoadedJob) -> Iterator[str]:
    retry = job.conf.retry
    yield (
        "- A row that does not parse or breaks a critical expectation goes to `ops.quarantine`, with its input and every "
        "reason; the rest of its batch goes on."
    )
    if any(isinstance(flow.reads, Source) for flow in job.flows):
        yield "- A file that cannot be read goes there as a whole, by its path."
    stops = [
        f"`{flow.name}`: {demand}"
        for flow in job.flows
        for (severity, columns, demand, _), entry in zip(expectations(job, flow), _entries(job, flow), strict=False)
        if severity == "critical" and (columns == "(table)" or entry.kwargs.get("mostly") is not None)
    ]
    if stops:
        yield f"- A batch is stopped whole, with exit code 3 and nothing written, unless: {'; '.join(stops)}."
    yield (
        f"- What may pass by itself (network, locks, no space) is tried again {many(retry.attempts, 'time')}, after "
        f"{retry.first_wait_s:g} s and then twice as long each time, at most {retry.max_wait_s:g} s; then exit code 5."
    )
    yield (
        "- Anything else stops the flow; flows that read its table wait, the others go on. The checkpoint stays, and the "
        "next run goes on from the last batch."
    )
    yield "- A batch that is run again changes nothing twice: its commits carry its own key."


def _entries(job: LoadedJob, flow: Flow) -> tuple[Entry, ...]:
    file = job.expectations.get(flow.name)
    return file.entries if file else ()


def _monitoring(suite: Suite, job: LoadedJob) -> Iterator[str]:
    found = standings(suite, job, datetime.now(timezone.utc))
    ledger = ops.rows(suite.environment.storage["warehouse"], "batches", [("job", "=", job.name)])
    if any(each.last_run_id for each in found):
        rows = []
        for each in found:
            ms = sum(b["duration_ms"] for b in ledger if (b["flow"], b["run_id"]) == (each.flow, each.last_run_id))
            when = (each.last_run_at or "never")[:16].replace("T", " ")
            counts = [
                f"{n:,}" for n in (each.rows_read, each.rows_written, each.rows_quarantined, each.rows_superseded)
            ]
            errors = each.last_error or ("none" if each.last_status == "done" else each.last_status or "-")
            rows.append((each.flow, when, *counts, f"{ms / 1000:,.1f}", errors))
        yield "The last run of each flow, from `ops.batches` and `ops.runs`:\n"
        head = (
            "Flow",
            "Run (UTC)",
            "Records processed",
            "Written",
            "Quarantined",
            "Superseded",
            "Duration (s)",
            "Errors",
        )
        yield from _table(head, rows)
    else:
        yield "No run yet: records processed, duration and errors are in `ops.batches` and `ops.runs` from the first one on."
    yield ""
    if not job.conf.alerts:
        yield "No alerts are set."
        return
    alerts = [(f"`{a.when}`", a.severity, ", ".join(a.notify) or "nobody") for a in job.conf.alerts]
    yield from _table(("Alert threshold", "Severity", "Notifies"), alerts)


def _graph(suite: Suite, job: LoadedJob) -> Iterator[str]:
    """The tables and sources as a Mermaid graph; a dotted line is a snapshot or a reader in another job."""
    nodes: dict[str, str] = {}
    edges: list[str] = []

    def table(name: str) -> str:
        id_ = f"table_{name.replace('.', '__')}"
        nodes[id_] = f'{id_}[("{name}")]'
        return id_

    for flow in job.flows:
        if isinstance(flow.reads, Source):
            start = f"source_{flow.reads.name}"
            nodes[start] = f'{start}[/"{flow.reads.name} ({job.conf.sources[flow.reads.name].kind})"/]'
        else:
            start = table(flow.reads)
        edges.append(f"{start} -->|{flow.name}| {table(flow.writes.table)}")
        for snapshot in snapshots_of(flow).values():
            edges.append(f"{table(snapshot.table)} -.->|snapshot in {flow.name}| {table(flow.writes.table)}")
        for reader_job, reader in suite.readers_of(flow.writes.table):
            if reader_job != job.name:
                nodes[f"reader_{reader_job}"] = f'reader_{reader_job}(["job {reader_job}"])'
                edges.append(f"{table(flow.writes.table)} -.->|{reader.name}| reader_{reader_job}")
    yield "```mermaid\ngraph LR"
    yield from (f"    {line}" for line in (*nodes.values(), *edges))
    yield "```\n"


def _columns(traced: Sequence[Traced]) -> Iterator[str]:
    def names(columns: Sequence[Column], counted: bool) -> str:
        return ", ".join(f"`{input_}.{column}`" for input_, column in columns) or (
            "the number of rows" if counted else "no column"
        )

    rows = [
        (
            f"`{each.table}.{each.column}`",
            each.type,
            each.how,
            names(each.inputs, each.how == "aggregated"),
            names(each.sources, each.how == "aggregated"),
        )
        for each in traced
    ]
    yield from _table(("Target column", "Type", "How", "Made of", "Source columns"), rows)


def and_(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
