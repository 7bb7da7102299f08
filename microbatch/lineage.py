"""Where each column comes from, read out of Spark's analysed plan of each transform over empty frames: no data, no job.

Every attribute of a plan has an id. An alias says from which ids its own is made, a relation says which column an id is: so a
target's column is followed to the columns of the flow's inputs, and over the tables of the job to those of its sources.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from microbatch import empty
from microbatch.job import Flow, Source, snapshots_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

PREFIX = "__lineage_"  # of the aliases that mark the inputs of a flow in its plan
HOWS = ("constant", "as it is", "renamed", "computed", "aggregated")  # of two steps, the later word wins

Part = dict[str, Any]
"""A node of a plan or of an expression, as Spark writes it to JSON."""
Column = tuple[str, str]
"""An input and one of its columns: ("silver.sales", "amount")."""


@dataclass(frozen=True)
class Traced:
    """Where a column of a target comes from.

    Attributes:
        how: one of `HOWS`, within its own flow.
        inputs: the columns of the flow's inputs it is made of.
        sources: the same, followed over the tables of the job to its sources, or to tables of other jobs.
    """

    table: str
    column: str
    type: str
    flow: str
    how: str
    inputs: tuple[Column, ...]
    sources: tuple[Column, ...]


def trace(
    spark: SparkSession, flows: Sequence[tuple[Flow, StructType, StructType]], tables: Mapping[str, StructType]
) -> list[Traced]:
    """Follow every column of every target of a job.

    Args:
        flows: each with its input and its output, in the order their tables require.
        tables: the columns of each table that is a snapshot of one of them.
    """
    traced: list[Traced] = []
    known: dict[Column, tuple[Column, ...]] = {}
    for flow, input_, output in flows:
        made = of_flow(spark, flow, input_, tables)
        for field in output:
            how, inputs = made.get(field.name, ("constant", ()))
            sources = tuple(dict.fromkeys(source for each in inputs for source in known.get(each, (each,))))
            known[flow.writes.table, field.name] = sources
            type_ = field.dataType.simpleString().upper()
            traced.append(Traced(flow.writes.table, field.name, type_, flow.name, how, inputs, sources))
    return traced


def of_flow(
    spark: SparkSession, flow: Flow, input_: StructType, tables: Mapping[str, StructType]
) -> dict[str, tuple[str, tuple[Column, ...]]]:
    """By output column of one flow: how it is made, and of which columns of the flow's inputs."""
    streamed = flow.reads.name if isinstance(flow.reads, Source) else flow.reads
    if flow.transform is None:
        return {name: ("as it is", ((streamed, name),)) for name in input_.fieldNames()}
    row = empty.declared(spark, "_row STRING")
    wide = type(input_)([*input_, *([] if flow.recompute_by else row)])
    names = {f"{PREFIX}streamed": streamed}
    frames = {}
    for parameter, snapshot in snapshots_of(flow).items():
        names[f"{PREFIX}snapshot_{parameter}"] = snapshot.table
        frames[parameter] = empty.frame(spark, tables[snapshot.table]).alias(f"{PREFIX}snapshot_{parameter}")
    return of_frame(flow.transform(empty.frame(spark, wide).alias(f"{PREFIX}streamed"), **frames), names)


def of_frame(frame: DataFrame, names: Mapping[str, str]) -> dict[str, tuple[str, tuple[Column, ...]]]:
    """By column of a frame: how it is made, and of which columns.

    Args:
        names: the alias of each input frame -> what its columns are said to be of.
    """
    nodes = json.loads(frame._jdf.queryExecution().analyzed().toJSON())
    plan = _Plan(names)
    outputs, _ = plan.visit(nodes, 0)
    found = {}
    for name, id_ in zip(frame.columns, outputs, strict=True):
        how, columns = plan.resolve(id_, frozenset())
        renamed = how == "as it is" and all(column != name for _, column in columns)
        found[name] = ("renamed" if renamed else how, tuple(dict.fromkeys(columns)))
    return found


class _Plan:
    """What the ids of a plan stand for: a column of an input, or an expression over other ids."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self.leaves: dict[int, str] = {}  # id -> the name a relation gives it
        self.columns: dict[int, Column] = {}
        self.made: dict[int, tuple[str, list[int]]] = {}
        self.also: dict[int, list[int]] = {}  # id of the first part of a union -> those of the others
        self.named: dict[int, list[int]] = {}  # what comes out of each named query (WITH … AS)

    def resolve(self, id_: int, seen: frozenset[int]) -> tuple[str, list[Column]]:
        """How an id is made, and of which columns of the inputs."""
        if id_ in seen:
            return "constant", []
        how, ids = self.made.get(id_, ("as it is" if id_ in self.columns else "constant", []))
        own = [self.columns[id_]] if id_ in self.columns else []
        parts = [self.resolve(each, seen | {id_}) for each in (*ids, *self.also.get(id_, ()))]
        return max([how, *[part for part, _ in parts]], key=HOWS.index), own + [c for _, found in parts for c in found]

    def visit(self, nodes: Sequence[Part], at: int) -> tuple[list[int], int]:
        """Take in the node at a place of the flat, parents-first list: the ids that come out of it, and the next place."""
        node, next_ = nodes[at], at + 1
        children: list[list[int]] = []
        for _ in range(node["num-children"]):
            child, next_ = self.visit(nodes, next_)
            children.append(child)
        for expression in _expressions(list(node.values())):
            self._aliases(expression)
        return self._out(node, children), next_

    def _aliases(self, expression: Sequence[Part]) -> None:
        for at, part in enumerate(expression):
            if _class(part) == "Alias":
                inside = expression[at + 1 : _end(expression, at)]
                refs = _refs(inside)
                if any(_class(each) == "AggregateExpression" for each in inside):
                    how = "aggregated"
                else:
                    how = "constant" if not refs else "as it is" if len(inside) == 1 else "computed"
                self.made[_id(part)] = (how, refs)

    def _out(self, node: Part, children: list[list[int]]) -> list[int]:
        """The ids of the columns that come out of a node, in their order."""
        kind = _class(node)
        through = [id_ for child in children for id_ in child]
        if not children:
            out = {_id(e[0]): e[0]["name"] for e in _expressions(node.get("output"))}
            self.leaves |= out
            if kind == "CTERelationRef":
                pairs = zip(out, self.named[node["cteId"]], strict=True)
                self.made |= {id_: ("as it is", [there]) for id_, there in pairs if id_ != there}
            return list(out)
        if kind in ("Project", "Aggregate"):
            return [
                _id(e[0]) for e in _expressions(node["projectList" if kind == "Project" else "aggregateExpressions"])
            ]
        if kind == "SubqueryAlias" and (name := self.names.get(node["identifier"]["name"])):
            self.columns |= {id_: (name, self.leaves[id_]) for id_ in through if id_ in self.leaves}
        elif kind == "CTERelationDef":
            self.named[node["id"]] = through
        elif kind == "WithCTE":
            return children[-1]
        elif kind == "Window":
            return through + [_id(e[0]) for e in _expressions(node["windowExpressions"])]
        elif kind == "Generate":
            made = [_id(e[0]) for e in _expressions(node["generatorOutput"])]
            self.made |= {id_: ("computed", _refs(node["generator"])) for id_ in made}
            return [id_ for at, id_ in enumerate(through) if at not in node["unrequiredChildIndex"]] + made
        elif kind == "Expand":
            made = [_id(e[0]) for e in _expressions(node["output"])]
            for at, id_ in enumerate(made):
                if id_ not in through:
                    refs = [ref for one in node["projections"] for ref in _refs(one[at])]
                    self.made[id_] = ("as it is" if refs else "constant", refs)
            return made
        elif kind in ("Union", "Intersect", "Except"):
            for at, id_ in enumerate(children[0]):
                self.also.setdefault(id_, []).extend(child[at] for child in children[1:] if child[at] != id_)
            return children[0]
        elif kind == "Join" and any(word in str(node["joinType"]) for word in ("LeftSemi", "LeftAnti")):
            return children[0]
        return through


def _expressions(part: Any) -> Iterator[list[Part]]:
    """Every expression in a part of a node: a flat, parents-first list of records that have a class."""
    if isinstance(part, list) and part and isinstance(part[0], dict) and "num-children" in part[0]:
        yield part
    elif isinstance(part, list):
        for each in part:
            yield from _expressions(each)


def _class(part: Part) -> str:
    return str(part["class"]).rsplit(".", 1)[-1]


def _id(part: Part) -> int:
    return int(part["exprId"]["id"])


def _refs(expression: Sequence[Part]) -> list[int]:
    return [_id(part) for part in expression if _class(part) == "AttributeReference"]


def _end(expression: Sequence[Part], at: int) -> int:
    """The place behind a part and all that is below it."""
    open_, end = 1, at
    while open_:
        open_ += expression[end]["num-children"] - 1
        end += 1
    return end
