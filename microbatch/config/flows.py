"""What can be wrong with one flow, by itself and with its conf. Each check gives sentences, all of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from microbatch.config.names import NAME_RULE, hint, is_name
from microbatch.job import Append, Flow, History, Replace, Snapshot, Source, Target

TARGETS: tuple[type, ...] = get_args(Target)
OWN_SCHEMA = "ops"
_COLUMN = re.compile(r"\w{1,255}")  # what needs no quoting anywhere, in any alphabet
_EVOLVE = ("fail", "add_columns")


def table_problem(table: Any) -> str | None:
    """Why something cannot be the name of a table; None where it can."""
    if not isinstance(table, str):
        return f"a table is named by text, not by {_a(table)}"
    schema, _, name = table.partition(".")
    if not (is_name(schema) and is_name(name)):
        return f'"{table[:80]}" is not the name of a table: write schema.table, each of {NAME_RULE}'
    if schema == OWN_SCHEMA:
        return f"the schema {OWN_SCHEMA} is the engine's own; put {table} into another"
    return None


def shape_problems(flow: Flow) -> list[str]:
    """What is of the wrong type or not a name. Nothing else may be asked of a flow that has one of these."""
    return [*_name_problems(flow), *_input_problems(flow), *_snapshot_problems(flow), *_target_problems(flow)]


def rule_problems(flow: Flow) -> list[str]:
    """What breaks a rule, in a flow that has no `shape_problems`."""
    return [*_column_problems(flow), *_recompute_problems(flow), *_parameter_problems(flow)]


def _quoted(thing: Any) -> str:
    return repr(thing if isinstance(thing, int | float) else str(thing)[:80])


def _a(thing: Any) -> str:
    if isinstance(thing, type):
        return f"the class {thing.__name__}"
    kind = type(thing).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _name_problems(flow: Flow) -> Iterator[str]:
    transform: Any = flow.transform
    if not is_name(flow.name):
        yield f"its name cannot be {_quoted(flow.name)}: {NAME_RULE}"
    if flow.expects is not None and not is_name(flow.expects):
        yield f"expects names a file of expectations without its ending; {_quoted(flow.expects)} is not a name"
    if transform is not None and not callable(transform):
        yield f"transform is {_a(transform)}, not a function"


def _input_problems(flow: Flow) -> Iterator[str]:
    reads: Any = flow.reads
    if isinstance(reads, Source):
        schema: Any = reads.schema
        if not is_name(reads.name):
            yield f"its source cannot be named {_quoted(reads.name)}: {NAME_RULE}"
        if not isinstance(schema, str) or not schema.strip():
            yield f'the schema of source {reads.name} must be its columns as text, such as "id BIGINT, name STRING"'
    elif isinstance(reads, str):
        if what := table_problem(reads):
            yield f"reads: {what}; what is not a table of this suite is a Source(...)"
    else:
        yield f"reads is {_a(reads)}; give a Source(...) or the name of a table"


def _snapshot_problems(flow: Flow) -> Iterator[str]:
    snapshots: Any = flow.snapshots
    if not isinstance(snapshots, Mapping):
        yield f"snapshots is {_a(snapshots)}; give a mapping of parameter names to tables"
        return
    for name, given in snapshots.items():
        if not isinstance(name, str) or not name.isidentifier():
            yield f"snapshot {_quoted(name)} is not the name of a parameter"
        if not isinstance(given, str | Snapshot):
            yield f"snapshot {name} is {_a(given)}; give the name of a table or a Snapshot(...)"
            continue
        if what := table_problem(given if isinstance(given, str) else given.table):
            yield f"snapshot {name}: {what}"
        if isinstance(given, Snapshot):
            if not _is_number(given.min_rows) or given.min_rows < 0 or given.min_rows != int(given.min_rows):
                yield f"snapshot {name}: min_rows must be a whole number, 0 or more"
            if given.max_age_h is not None and not (_is_number(given.max_age_h) and given.max_age_h > 0):
                yield f"snapshot {name}: max_age_h must be a number of hours above 0, or None"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _target_problems(flow: Flow) -> Iterator[str]:
    target: Any = flow.writes
    if type(target) not in TARGETS:
        names = ", ".join(f"{kind.__name__}(...)" for kind in TARGETS)
        yield f"writes is {_a(target)}; give one of {names}"
        return
    if what := table_problem(target.table):
        yield f"writes: {what}"
    for field in ("keys", "newest_by", "cluster_by", "partition_by"):
        yield from _list_problems(field, getattr(target, field, ()))
    yield from _list_problems("recompute_by", tuple(flow.recompute_by))
    if target.evolve not in _EVOLVE:
        yield f"evolve cannot be {_quoted(target.evolve)}{hint(target.evolve, _EVOLVE)}"
    delete_when = getattr(target, "delete_when", None)
    if delete_when is not None and (not isinstance(delete_when, str) or not delete_when.strip()):
        yield "delete_when must be SQL over the row as text, or be left out"


def _list_problems(field: str, columns: tuple[Any, ...]) -> Iterator[str]:
    for column in columns:
        if not isinstance(column, str):
            yield f"{field} holds {_a(column)}; give names of columns"
        elif not _COLUMN.fullmatch(column):
            yield f"{field}: {_quoted(column)} cannot be a column: letters, digits and _ only, at most 255"
    if len({str(column).lower() for column in columns}) < len(columns):
        yield f"{field} names a column twice: {', '.join(map(str, columns))}"


def _column_problems(flow: Flow) -> Iterator[str]:
    target = flow.writes
    if not isinstance(target, Append) and not target.keys:
        yield f"{type(target).__name__} needs keys: the columns that " + (
            "name a group, the same as recompute_by" if isinstance(target, Replace) else "identify a row"
        )
    if isinstance(target, History) and len(target.newest_by) != 1:
        yield "History needs newest_by: the one column that says from when a version holds"
    if target.cluster_by and target.partition_by:
        yield "cluster_by and partition_by exclude each other; keep one"


def _recompute_problems(flow: Flow) -> Iterator[str]:
    target = flow.writes
    if not flow.recompute_by:
        if isinstance(target, Replace):
            columns = ", ".join(f'"{key}"' for key in target.keys) or '"…"'
            yield f"Replace rewrites whole groups, so the flow needs recompute_by=[{columns}]"
        return
    if not isinstance(target, Replace):
        yield f"recompute_by goes with Replace, not with {type(target).__name__}"
    elif target.keys and set(target.keys) != set(flow.recompute_by):
        yield (
            f"recompute_by and the keys of Replace must be the same columns, not {', '.join(flow.recompute_by)} "
            f"and {', '.join(target.keys)}"
        )
    if flow.transform is None:
        yield "recompute_by needs a transform, which gets every row of the groups that changed"
    if isinstance(flow.reads, Source):
        yield f"recompute_by needs a table to read groups from; keep the source {flow.reads.name} in a table first"


def _parameter_problems(flow: Flow) -> Iterator[str]:
    if flow.transform is None:
        if flow.snapshots:
            yield f"snapshots {', '.join(flow.snapshots)} are for a transform, and there is none"
        return
    name = getattr(flow.transform, "__name__", "transform")
    try:
        parameters = list(inspect.signature(flow.transform).parameters.values())
    except (TypeError, ValueError):  # written in C: nothing is known about it
        return
    if not parameters or parameters[0].kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
        yield f"{name} has no first parameter for the rows to transform"
        return
    further = parameters[1:]
    loose = [item for item in parameters if item.kind in (item.VAR_POSITIONAL, item.VAR_KEYWORD)]
    if loose:
        yield f"{name} takes *{loose[0].name}; name each parameter, so that each snapshot has its own"
        return
    known = [item.name for item in further]
    for item in further:
        if item.name not in flow.snapshots and item.default is item.empty:
            yield f"{name} takes {item.name}, and no snapshot has that name{_near(item.name, flow.snapshots)}"
        if item.name in flow.snapshots and item.kind is item.POSITIONAL_ONLY:
            yield f"{name} takes {item.name} by position only; take the / out of its parameters"
    for snapshot in flow.snapshots:
        if snapshot not in known:
            yield f"snapshot {snapshot} is not a parameter of {name}{hint(snapshot, known, listed='it has')}"


def _near(word: str, known: Mapping[str, Any]) -> str:
    text = hint(word, known)
    return text if "did you mean" in text else ""
