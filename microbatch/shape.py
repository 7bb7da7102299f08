"""What shape rows have on their way, found by running each transform over empty frames: no data is read, no job runs.

This is where a transform is refused that would drop, multiply or forget rows, by name and source file, before a batch runs.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

from pyspark.sql.types import BooleanType, StructField, StructType

from microbatch import checks, empty
from microbatch.config import LoadedJob, Suite
from microbatch.errors import ConfigError, Problem, shortened
from microbatch.job import Append, Flow, History, Source, never_null, snapshots_of
from microbatch.sink.history import ADDED
from microbatch.sink.tables import Table, columns_of
from microbatch.sources.tables import CHANGE_COLUMNS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from microbatch.checks.judging import Plan

INPUT = "__streamed_input"
DROPS_OR_MULTIPLIES = {
    "Filter": "drops rows (filter, where or dropna)",
    "TypedFilter": "drops rows (filter)",
    "Generate": "multiplies rows (explode)",
    "Aggregate": "merges rows (groupBy or distinct)",
    "Distinct": "merges rows (distinct)",
    "Deduplicate": "merges rows (distinct or dropDuplicates)",
    "DeduplicateWithinWatermark": "merges rows (dropDuplicatesWithinWatermark)",
    "Union": "multiplies rows (union)",
    "Intersect": "drops rows (intersect)",
    "Except": "drops rows (exceptAll or subtract)",
    "Sample": "drops rows (sample)",
    "GlobalLimit": "drops rows (limit)",
    "LocalLimit": "drops rows (limit)",
    "Offset": "drops rows (offset)",
    "Tail": "drops rows (tail)",
    "Expand": "multiplies rows (cube or rollup)",
    "LateralJoin": "can drop or multiply rows (lateral join)",
    "MapInPandas": "can drop or multiply rows (mapInPandas)",
    "MapInArrow": "can drop or multiply rows (mapInArrow)",
    "FlatMapGroupsInPandas": "merges rows (applyInPandas)",
    "FlatMapGroupsInArrow": "merges rows (applyInArrow)",
    "ScriptTransformation": "can drop or multiply rows (transform by a script)",
}
# Spark takes a watermark out of the plan of a batch, so it is looked for in the function.
KEEPS_STATE = ("withWatermark", "dropDuplicatesWithinWatermark")
NOT_REPEATABLE = {
    "Rand": "rand()",
    "Randn": "randn()",
    "RandStr": "randstr()",
    "Uniform": "uniform()",
    "Uuid": "uuid()",
    "Shuffle": "shuffle()",
    "CurrentTimestamp": "current_timestamp()",
    "CurrentDate": "current_date()",
    "CurrentTime": "current_time()",
    "LocalTimestamp": "localtimestamp()",
    "Now": "now()",
    "UnixTimestampNow": "unix_timestamp() of now",
    "MonotonicallyIncreasingID": "monotonically_increasing_id()",
    "SparkPartitionID": "spark_partition_id()",
    "NondeterministicUDF": "a nondeterministic UDF",
    "InputFileName": "input_file_name()",
    "InputFileBlockStart": "input_file_block_start()",
    "InputFileBlockLength": "input_file_block_length()",
}
OWN_NAMES = re.compile(r"(?i)_row|_unparsed|_problem|_corrupt|_letter|_(failed|gx|mb)_.*")
NOT_IN_A_NAME = frozenset(" ,;{}()\n\t=`")  # Delta Lake manual, "Column mapping": without it these are refused
JOINS_KEEP = {("LeftOuter", 0), ("RightOuter", 1)}  # the join types that keep each row of their left, or right, side


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
                found[job.name, flow.name] = Shape(input_, output, plan_of(spark, job, flow, output))
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
        result = flow.transform(empty.frame(spark, wide).alias(INPUT), **frames)
        if not hasattr(result, "_jdf"):
            raise TypeError(f"it gave {type(result).__name__}, not a DataFrame; is there a return?")
        columns = list(result.columns)
    except Exception as cause:
        raise ConfigError(
            Problem(where, f"{source} line {_line_in(cause, flow.transform)}: {_first_line(cause)}")
        ) from cause
    problems = [Problem(where, f"{source}: {what}") for what in (*_state(flow.transform), *_refusals(result, keeps))]
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


def _refusals(result: DataFrame, row_for_row: bool) -> Iterator[str]:
    """What a transform does that it must not, out of Spark's own analysed plan."""
    nodes = json.loads(result._jdf.queryExecution().analyzed().toJSON())
    for name in sorted({NOT_REPEATABLE[name] for name in _expressions(nodes) & NOT_REPEATABLE.keys()}):
        yield f"uses {name}: a batch that is run again would come out differently; take the value from the input"
    if row_for_row:
        tree, _ = _tree(nodes, 0)
        yield from dict.fromkeys(_on_path(tree))


def _state(function: Callable[..., Any]) -> Iterator[str]:
    """What keeps state from batch to batch, in a transform or in what it calls of its own module."""
    start = inspect.unwrap(function)
    seen, waiting, used = {start}, [start], set[str]()
    while waiting:
        globals_ = getattr(waiting[-1], "__globals__", {})
        names = _names(getattr(waiting.pop(), "__code__", None))
        used |= names
        called = {globals_[name] for name in names if inspect.isfunction(globals_.get(name))}
        waiting += [each for each in called - seen if each.__module__ == start.__module__]
        seen |= called
    for name in KEEPS_STATE:
        if name in used:
            yield f"keeps state ({name}); a micro-batch is transformed by itself, and late rows are not dropped"


def _names(code: CodeType | None) -> set[str]:
    if code is None:
        return set()
    return set(code.co_names).union(*[_names(each) for each in code.co_consts if isinstance(each, CodeType)])


def _expressions(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["class"].rsplit(".", 1)[-1].rstrip("$")} if isinstance(part.get("class"), str) else set()
        if part.get("udfDeterministic") is False:
            own.add("NondeterministicUDF")
        return own.union(*[_expressions(value) for value in part.values()])
    return set().union(*[_expressions(each) for each in part]) if isinstance(part, list) else set()


def _tree(nodes: list[dict[str, Any]], at: int) -> tuple[tuple[dict[str, Any], list[Any]], int]:
    """The plan's nodes come flat, parents first, each with the number of its children."""
    node, children, next_ = nodes[at], [], at + 1
    for _ in range(node["num-children"]):
        child, next_ = _tree(nodes, next_)
        children.append(child)
    return (node, children), next_


def _on_path(tree: tuple[dict[str, Any], list[Any]]) -> Iterator[str]:
    """What the nodes between the streamed input and the result do to its rows; a snapshot's own nodes are its own affair."""
    node, children = tree
    name = node["class"].rsplit(".", 1)[-1]
    sides = [number for number, child in enumerate(children) if _holds_input(child)]
    if not sides:
        return
    if name in DROPS_OR_MULTIPLIES:
        yield f"{DROPS_OR_MULTIPLIES[name]}; a transform is row for row, only a flow with recompute_by aggregates"
    elif name == "Join":
        kind = str(node["joinType"].get("object", node["joinType"])).rsplit(".", 1)[-1].rstrip("$")
        if len(sides) > 1:
            yield "joins the streamed input with itself"
        elif (kind, sides[0]) not in JOINS_KEEP:
            yield f"can drop rows ({_words(kind)} join); use a left join, and an expectation on what it must find"
    for number in sides:
        yield from _on_path(children[number])


def _holds_input(tree: tuple[dict[str, Any], list[Any]]) -> bool:
    node, children = tree
    identifier = node.get("identifier")
    return (isinstance(identifier, dict) and identifier.get("name") == INPUT) or any(
        _holds_input(child) for child in children
    )


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


def plan_of(
    spark: SparkSession, job: LoadedJob, flow: Flow, output: StructType, mask: Sequence[str] | None = None
) -> Plan:
    """The expectations over the transformed rows of a flow.

    Args:
        mask: columns whose values no message may show; None: those that the job's sources mask.

    Raises:
        ConfigError: with every expectation that cannot be held.
    """
    if mask is None:
        mask = tuple(name for conf in job.conf.sources.values() for name in conf.mask)
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


def _words(name: str) -> str:
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"
