"""What a transform must not do, out of the plan that Spark has analysed: drop, multiply or merge rows, come out differently
when a batch is run again, keep state from batch to batch. No data is read, no job runs.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from types import CodeType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

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
JOINS_KEEP = {("LeftOuter", 0), ("RightOuter", 1)}  # the join types that keep each row of their left, or right, side


def refusals(result: DataFrame, row_for_row: bool) -> Iterator[str]:
    """What a transform does that it must not, out of Spark's own analysed plan."""
    nodes = json.loads(result._jdf.queryExecution().analyzed().toJSON())
    for name in sorted({NOT_REPEATABLE[name] for name in _expressions(nodes) & NOT_REPEATABLE.keys()}):
        yield f"uses {name}: a batch that is run again would come out differently; take the value from the input"
    if row_for_row:
        tree, _ = _tree(nodes, 0)
        yield from dict.fromkeys(_on_path(tree))


def state(function: Callable[..., Any]) -> Iterator[str]:
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


def _words(name: str) -> str:
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()
