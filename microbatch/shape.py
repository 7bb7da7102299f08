"""What shape rows have on their way, found by running each transform over empty frames: no data is read, no job runs.

This is where a flow is refused whose columns, keys or rules do not fit, or whose transform does what none may (`row_for_row`).
"""

from __future__ import annotations

import difflib
import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql.types import BooleanType, StructField, StructType

from microbatch import checks, empty, row_for_row
from microbatch.config import LoadedJob, Suite
from microbatch.errors import ConfigError, Problem, shortened
from microbatch.job import Append, Flow, History, Source, never_null, snapshots_of
from microbatch.sink.history import ADDED
from microbatch.sink.tables import Table, columns_of
from microbatch.sources.tables import CHANGE_COLUMNS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from microbatch.checks.judging import Plan

OWN_NAMES = re.compile(r"(?i)_row|_unparsed|_problem|_corrupt|_letter|_(failed|gx|mb)_.*")
NOT_IN_A_NAME = frozenset(" ,;{}()\n\t=`")  # Delta Lake manual, "Column mapping": without it these are refused


@dataclass(frozen=True)
class Shape:
    """A flow's shape.

    Attributes:
        input: what the transform is given, without the engine's columns.
        output: the transformed rows, and so the target's columns.
        plan: the expectations over `output`.
    """

    input: StructType
    output: StructType
    plan: Plan


def shapes(spark: SparkSession, suite: Suite, jobs: tuple[str, ...]) -> dict[tuple[str, str], Shape]:
    """The shape of every flow of these jobs, by job and flow.

    Raises:
        ConfigError: with every mistake in schemas, transforms, keys and expectations of these jobs.
    """
    found: dict[tuple[str, str], Shape] = {}
    outputs: dict[str, StructType] = {}
    problems: list[Problem] = []
    wanted = set(jobs)
    for job, flow in suite.ordered(tuple(suite.jobs)):
        where = _where(job, flow)
        try:
            input_ = _input(spark, suite, job, flow, outputs)
            output = _output(spark, job, flow, input_, outputs)
            outputs[flow.writes.table] = written_by(flow, output)
            if job.name in wanted:
                _columns(spark, suite, where, flow, input_, output)
                found[job.name, flow.name] = Shape(input_, output, plan_of(spark, job, flow, output, job.mask))
        except ConfigError as error:
            problems += error.problems if job.name in wanted else []
        except _Unknown:
            continue  # its input has a mistake that is told already
    problems += [] if problems else [each for name in jobs for each in _masks_nothing(suite.job(name), found)]
    if problems:
        raise ConfigError(*problems)
    return found


def _masks_nothing(job: LoadedJob, found: Mapping[tuple[str, str], Shape]) -> Iterator[Problem]:
    """A mask that names no column of its job hides nothing, and nobody would know."""
    mine = [found[job.name, flow.name] for flow in job.flows if (job.name, flow.name) in found]
    names = sorted({name for shape in mine for name in (*shape.input.fieldNames(), *shape.output.fieldNames())})
    known = {name.lower() for name in names}
    for source, conf in job.conf.sources.items():
        for name in conf.mask:
            if not {name.lower(), "_rescued"} & known and len(mine) == len(job.flows):  # what is rescued has any field
                what = f"sources.{source}.mask names {name}, which is no column of the job{_nearest(name, names)}"
                yield Problem(f"conf/base/{job.name}.yml", what)


def written_by(flow: Flow, output: StructType) -> StructType:
    """The columns of a flow's target: those of the transformed rows, and for a History the time they hold."""
    if not isinstance(flow.writes, History) or flow.writes.newest_by[0] not in output.fieldNames():
        return output
    at = output[flow.writes.newest_by[0]].dataType
    added = zip(ADDED, (at, at, BooleanType()), strict=True)
    return StructType([*output, *[StructField(name, kind) for name, kind in added]])


class _Unknown(Exception):
    """The shape of a table is not known, because the flow that writes it has a mistake."""


def reads_changes(suite: Suite, flow: Flow) -> bool:
    """Whether the flow's input table is read as its changes: it is not only appended to."""
    return isinstance(flow.reads, str) and not isinstance(suite.writer_of(flow.reads)[1].writes, Append)


def _input(
    spark: SparkSession, suite: Suite, job: LoadedJob, flow: Flow, outputs: Mapping[str, StructType]
) -> StructType:
    if isinstance(flow.reads, Source):
        conf = job.conf.sources[flow.reads.name]
        try:
            schema = empty.declared(spark, flow.reads.schema)
        except Exception as cause:
            raise ConfigError(
                Problem(_where(job, flow), f"schema of source {flow.reads.name} is not DDL: {_first_line(cause)}")
            ) from cause
        added = conf.adds()
        return type(schema)([*schema, *empty.declared(spark, ", ".join(added))]) if added else schema
    if flow.reads not in outputs:
        raise _Unknown
    schema = outputs[flow.reads]
    if reads_changes(suite, flow) and not flow.recompute_by:
        extra = empty.declared(spark, CHANGE_COLUMNS)
        return type(schema)([field for field in schema if field.name not in extra.fieldNames()] + list(extra))
    return schema


def _output(
    spark: SparkSession, job: LoadedJob, flow: Flow, input_: StructType, outputs: Mapping[str, StructType]
) -> StructType:
    if flow.transform is None:
        return input_
    where, keeps = _where(job, flow), not flow.recompute_by
    wide = type(input_)([*input_, *empty.declared(spark, "_row STRING")]) if keeps else input_
    frames = {}
    for name, snapshot in snapshots_of(flow).items():
        if snapshot.table not in outputs:
            raise _Unknown
        frames[name] = empty.frame(spark, outputs[snapshot.table])
    source = f"transform {flow.transform.__name__}, {_file_of(flow.transform)}"
    try:
        result = flow.transform(empty.frame(spark, wide).alias(row_for_row.INPUT), **frames)
        if not hasattr(result, "_jdf"):
            raise TypeError(f"it gave {type(result).__name__}, not a DataFrame; is there a return?")
        columns = list(result.columns)
    except Exception as cause:
        raise ConfigError(
            Problem(where, f"{source} line {_line_in(cause, flow.transform)}: {_first_line(cause)}")
        ) from cause
    problems = [
        Problem(where, f"{source}: {what}")
        for what in (*row_for_row.state(flow.transform), *row_for_row.refusals(result, keeps))
    ]
    if keeps and "_row" not in columns:
        lost = (
            "loses `_row`, the engine's copy of the input row; let columns it does not know pass "
            "(select('*', ...), withColumn, drop)"
        )
        problems.append(Problem(where, f"{source}: {lost}"))
    folded = [name.lower() for name in columns]  # Spark and Delta tell names apart without their case
    doubled = sorted({name for name in columns if folded.count(name.lower()) > 1})
    if doubled:
        problems.append(Problem(where, f"{source}: column {', '.join(doubled)} comes out twice"))
    if problems:
        raise ConfigError(*problems)
    return result.drop("_row").schema


def _columns(spark: SparkSession, suite: Suite, where: str, flow: Flow, input_: StructType, output: StructType) -> None:
    """Hold the names a flow gives against the columns there are, and those against the table there is."""
    problems, target = [], flow.writes
    named = {name: getattr(target, name, ()) for name in ("keys", "newest_by", "track", "cluster_by", "partition_by")}
    for what, names, schema in [
        *((what, names, output) for what, names in named.items()),
        ("recompute_by", flow.recompute_by, input_),
    ]:
        for name in names:
            if name not in schema.fieldNames():
                problems.append(
                    Problem(where, f"{what} names {name}, which is no column{_nearest(name, schema.fieldNames())}")
                )
    condition = getattr(target, "delete_when", None)
    if condition:
        try:
            empty.frame(spark, output).where(condition).schema  # noqa: B018  the analysis is what is wanted
        except Exception as cause:
            problems.append(Problem(where, f"delete_when: {_first_line(cause)}"))
    # What comes in is held against it too: beside a column of its own the engine would see two of a name, or overwrite one.
    both = dict.fromkeys([*input_.fieldNames(), *output.fieldNames()])
    if engine := [name for name in both if OWN_NAMES.fullmatch(name)]:
        problems.append(Problem(where, f"column {', '.join(engine)} has a name of the engine's own; rename it"))
    added = [name for name in output.fieldNames() if name.lower() in ADDED]
    if isinstance(target, History) and added:
        what = f"column {', '.join(added)} is one that a History adds itself; rename it in the transform"
        problems.append(Problem(where, what))
    odd = [name for name in written_by(flow, output).fieldNames() if NOT_IN_A_NAME.intersection(name)]
    if odd:
        what = f"column {', '.join(map(repr, odd))} has a letter that a Delta table does not take; rename it in the transform"
        problems.append(Problem(where, what))
    problems += _against_table(suite, where, flow, written_by(flow, output))
    if problems:
        raise ConfigError(*problems)


def _against_table(suite: Suite, where: str, flow: Flow, output: StructType) -> Iterator[Problem]:
    table = Table(suite.environment.storage["warehouse"], flow.writes.table)
    if not table.exists():
        return
    there = {f.name: f.dataType.simpleString() for f in columns_of(table.open())}
    here = {f.name: f.dataType.simpleString() for f in output}
    for name in here.keys() & there.keys():
        if here[name] != there[name]:
            yield Problem(
                where,
                f"column {name} is {here[name]}, in table {table.name} it is {there[name]}; cast it, or write a new table",
            )
    new = sorted(here.keys() - there.keys())
    if new and flow.writes.evolve == "fail":
        yield Problem(where, f'table {table.name} has no column {", ".join(new)}; drop it, or say evolve="add_columns"')
    gone = sorted(there.keys() - here.keys())
    if gone:
        yield Problem(
            where,
            f"table {table.name} has column {', '.join(gone)}, the flow no longer gives it; add it, if only as null",
        )


def plan_of(spark: SparkSession, job: LoadedJob, flow: Flow, output: StructType, mask: Sequence[str]) -> Plan:
    """The expectations over the transformed rows of a flow.

    Args:
        mask: columns whose values no message may show.

    Raises:
        ConfigError: with every expectation that cannot be held.
    """
    return checks.plan(
        job.expectations.get(flow.name),
        empty.frame(spark, output),
        not_null=never_null(flow),
        only_keys_when=getattr(flow.writes, "delete_when", None),
        mask=mask,
    )


def _where(job: LoadedJob, flow: Flow) -> str:
    return f"jobs/{job.name}.py flow {flow.name}"


def _file_of(function: Callable[..., Any]) -> str:
    file = inspect.getsourcefile(inspect.unwrap(function)) or "?"
    return "/".join(Path(file).parts[-2:])


def _line_in(cause: BaseException, function: Callable[..., Any]) -> int:
    """The line of the transform's own file where it went wrong."""
    file = inspect.getsourcefile(inspect.unwrap(function))
    lines = [
        frame.lineno for frame in traceback.extract_tb(cause.__traceback__) if frame.filename == file and frame.lineno
    ]
    return lines[-1] if lines else inspect.unwrap(function).__code__.co_firstlineno


def _first_line(cause: BaseException) -> str:
    return shortened(
        next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__), 300
    )


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"
