"""`microbatch plan`: what a run would do, and every mistake that would stop it. Reads; writes nothing, not even a folder."""

from __future__ import annotations

import os
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from microbatch.checks.wording import columns_of, requirement
from microbatch.commands.render import columns
from microbatch.config import LoadedJob, Suite
from microbatch.errors import ConfigError, MicrobatchError, Problem, redacted
from microbatch.job import Append, Flow, Source, Target, snapshots_of
from microbatch.runner.handshake import Standing, shake
from microbatch.runner.inputs import checkpoint_of, input_of, reads_of
from microbatch.runner.starting import start
from microbatch.sources import Advising
from microbatch.sources.tables import TableInput

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.types import StructType

    from microbatch.shape import Shape

Shapes = Mapping[tuple[str, str], "Shape"]
WIDTH = 118
LABEL = 11  # characters of the column that says what a line is


def execute(suite: Suite, job: LoadedJob) -> int:
    """Print the plan of a job.

    Raises:
        ConfigError: with every mistake in its schemas, transforms, keys, expectations and checkpoints.
    """
    standings = _standings(suite, job)
    shapes: Shapes = {}
    mistakes = [each for each in standings.values() if isinstance(each, ConfigError)]
    try:
        _, shapes = shaped(suite, job)
    except ConfigError as mistake:
        mistakes.append(mistake)
    if mistakes:
        raise ConfigError(*[problem for mistake in mistakes for problem in mistake.problems])
    print(without_secrets(suite, "\n".join(_job(suite, job, shapes, standings))))
    return 0


def shaped(suite: Suite, job: LoadedJob, *others: str) -> tuple[SparkSession, Shapes]:
    """A session that leaves no files behind, and the shape of every flow of the job, and of `others` by name.

    Raises:
        ConfigError: with every mistake in the job, or naming the job whose mistake hides the shape of a table it reads.
    """
    # Spark makes the folder of its own warehouse at the start, in the working directory unless said otherwise.
    nowhere = {"spark.sql.warehouse.dir": os.path.join(tempfile.gettempdir(), f"microbatch-{os.getuid()}-no-warehouse")}
    spark, found = start(suite, (job.name, *others), {**nowhere, **suite.spark_conf})
    hidden = [
        Problem(
            f"jobs/{job.name}.py flow {flow.name}",
            "a table it reads comes from a flow with a mistake; plan that job first",
        )
        for flow in job.flows
        if (job.name, flow.name) not in found
    ]
    if hidden:
        raise ConfigError(*hidden)
    return spark, found


def without_secrets(suite: Suite, text: str) -> str:
    """The text with the value of each secret taken out."""
    return redacted(text, suite.secrets)


def ddl(schema: StructType) -> list[str]:
    """Each column as `name TYPE`."""
    return [f"{field.name} {field.dataType.simpleString().upper()}" for field in schema]


def described(target: Target) -> str:
    """What a target does with rows, in words."""
    kind = type(target).__name__.lower()
    keys = getattr(target, "keys", ())
    words = [f"{kind} by {', '.join(keys)}" if keys else kind]
    newest_by = getattr(target, "newest_by", ())
    words += [f"the newest {', '.join(newest_by)} wins"] if newest_by else []
    words += [f"a row deletes its key when {deletes}"] if (deletes := getattr(target, "delete_when", None)) else []
    words += [f"clustered by {', '.join(target.cluster_by)}"] if target.cluster_by else []
    words += [f"partitioned by {', '.join(target.partition_by)}"] if target.partition_by else []
    words += ["new columns are added"] if target.evolve == "add_columns" else []
    return "; ".join(words)


def _standings(suite: Suite, job: LoadedJob) -> dict[str, Standing | MicrobatchError]:
    """Where each flow stands, or what would stop it before it starts."""
    found: dict[str, Standing | MicrobatchError] = {}
    for flow in job.flows:
        checkpoint, reads = checkpoint_of(suite, job, flow), reads_of(suite, job, flow)
        try:
            found[flow.name] = shake(suite.environment.storage["warehouse"], checkpoint, job, flow, reads)
        except MicrobatchError as error:
            found[flow.name] = error
    return found


def _job(
    suite: Suite, job: LoadedJob, shapes: Shapes, standings: Mapping[str, Standing | MicrobatchError]
) -> Iterator[str]:
    yield f"{job.name}: {job.doc.splitlines()[0] if job.doc else 'no docstring'}"
    yield f"{many(len(job.flows), 'flow')} in the order they run; environment {suite.env}, suite version {suite.version}"
    notes: list[str] = []
    for number, flow in enumerate(job.flows, 1):
        yield f"\n{number}. {flow.name}"
        yield from _flow(suite, job, flow, shapes[job.name, flow.name], standings[flow.name], notes)
    if notes:
        yield "\nnotes"
        yield from (f"  {note}" for note in notes)


def _flow(
    suite: Suite, job: LoadedJob, flow: Flow, shape: Shape, standing: Standing | MicrobatchError, notes: list[str]
) -> Iterator[str]:
    yield _line("reads", _reads(suite, job, flow))
    for name, snapshot in snapshots_of(flow).items():
        age = f", at most {snapshot.max_age_h} h old" if snapshot.max_age_h is not None else ""
        yield _line(
            "", f"snapshot {name}: table {snapshot.table} whole, at least {many(snapshot.min_rows, 'row')}{age}"
        )
    if flow.transform:
        recomputes = f", over every row of the {', '.join(flow.recompute_by)} that changed" if flow.recompute_by else ""
        yield _line("transform", f"{flow.transform.__module__}.{flow.transform.__name__}{recomputes}")
    yield _line("writes", f"table {flow.writes.table}: {described(flow.writes)}")
    yield _line("pending", _pending(suite, job, flow, standing, notes))
    yield _wrapped("in", ddl(shape.input))
    yield _wrapped("out", ddl(shape.output))
    rules = expectations(job, flow)
    yield _line("expects", "" if rules else "nothing")
    if rules:
        yield textwrap.indent(columns(("severity", "columns", "demand", "expectation"), rules), " " * 5)


def expectations(job: LoadedJob, flow: Flow) -> list[tuple[str, str, str, str]]:
    """Each expectation of a flow: severity, columns, demand in words, type; then what its keys imply."""
    file = job.expectations.get(flow.name)
    rules = []
    for entry in file.entries if file else ():
        mostly = entry.kwargs.get("mostly")
        share = f", for a share of {mostly} or more" if mostly is not None else ""
        named = ", ".join(columns_of(entry.kwargs)) or "(table)"
        rules.append((entry.severity, named, f"{requirement(entry.type, entry.kwargs)}{share}", entry.type))
    held = {named for severity, named, _, kind in rules if severity == "critical" and kind.endswith("_to_not_be_null")}
    implied = () if flow.recompute_by else getattr(flow.writes, "keys", ())
    return rules + [("critical", key, f"{key} must not be null", "(a key)") for key in implied if key not in held]


def _reads(suite: Suite, job: LoadedJob, flow: Flow) -> str:
    if isinstance(flow.reads, Source):
        return f"source {flow.reads.name}: {job.conf.sources[flow.reads.name].place(suite.root)}"
    writer_job, writer = suite.writer_of(flow.reads)
    by = f"written by {writer.name}" if writer_job == job.name else f"written by {writer_job}.{writer.name}"
    appended = isinstance(writer.writes, Append) and not flow.recompute_by
    return f"table {flow.reads}, {'row for row' if appended else 'its changes'} ({by})"


def _pending(suite: Suite, job: LoadedJob, flow: Flow, standing: Standing | MicrobatchError, notes: list[str]) -> str:
    if isinstance(standing, MicrobatchError):
        notes.append(f"{flow.name}: a run would stop: {standing}")
        return "not known, see the notes"
    try:
        input_ = input_of(suite, job, flow)
        count = input_.pending()
        if isinstance(input_, Advising):
            notes += [f"{flow.name}: {note}" for note in input_.notes()]
    except (MicrobatchError, OSError, ValueError) as error:
        notes.append(f"{flow.name}: {error}")
        return "not known, see the notes"
    if isinstance(input_, TableInput) and not input_.table.exists():
        return "the table is not there yet; a run makes it first"
    return f"{many(count, input_.unit)}{', and a batch that was begun' if standing.unfinished else ''}"


def many(count: int, thing: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _line(label: str, text: str) -> str:
    return f"   {label:<{LABEL}}{text}".rstrip()


def _wrapped(label: str, parts: Iterable[str]) -> str:
    lines, room = [""], WIDTH - LABEL - 3
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part) + 2 > room:
            lines[-1] += ","
            lines.append("")
        lines[-1] += f", {part}" if lines[-1] else part
    return "\n".join(_line(label if number == 0 else "", line) for number, line in enumerate(lines))
