"""Great Expectations' own metric graph: its conditions and aggregates as Columns, its results from counted numbers.

Nothing is written by hand a second time. The graph of each expectation is resolved as far as it needs no rows, which
gives Columns; the numbers that those Columns count are put back into the same graph, and `metrics_validate` makes the
result of them. What needs the rows in between raises `NeedsRows`, so no list of such expectations has to be kept.

This and `engine` are the modules that use what Great Expectations keeps private (its Spark engine, `ValidationGraph`,
the names of its metrics): the public API runs one Spark job and more for each expectation. The pin is 1.24; the test of
equality with Great Expectations' own validator is what holds it.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from great_expectations.exceptions import MetricResolutionError
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.expectations.registry import get_metric_provider
from great_expectations.validator.validation_graph import ValidationGraph
from pyspark.sql import Column
from pyspark.sql import functions as F

from microbatch.checks.engine import BATCH, Engine, NeedsRows, Unknown

_FORMAT: dict[str, Any] = {
    "result_format": {"result_format": "BASIC", "partial_unexpected_count": 20, "include_unexpected_rows": False}
}
_SCHEMA_METRICS = ("table.columns", "table.column_types", "table.column_count")
_PARTIAL = (".condition", ".map", ".aggregate_fn")
_SQL_COUNT, _SQL_ROWS = "unexpected_rows_query.row_count", "unexpected_rows_query.table"

MetricId = tuple[str, str, str]


@dataclass
class Translated:
    """One expectation as Columns.

    Attributes:
        expectation: Great Expectations' object.
        condition: true where a row is bad, not yet cut to the domain; None for an expectation that judges no rows.
        domain: the rows that are judged; None: all.
        window: whether the condition looks at other rows of the batch; Spark's analysis tells.
        numbers: metric -> the aggregate that gives it.
    """

    expectation: Any
    graph: Any
    known: dict[MetricId, Any]
    condition: Column | None = None
    domain: Column | None = None
    window: bool = False
    numbers: dict[MetricId, Column] = field(default_factory=dict)

    def failed(self) -> Column:
        """True where the row is bad; never null, because a null condition is no failure in Great Expectations."""
        condition = F.lit(False) if self.condition is None else self.condition
        return surely(condition if self.domain is None else self.domain & condition)


def surely(condition: Column) -> Column:
    """A filter keeps what is true; null is not true."""
    return F.coalesce(condition, F.lit(False))


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the text form of row_condition, which suites still use
        yield


@_quiet()
def build(kind: str, kwargs: Mapping[str, Any], **about: Any) -> Any:
    """The expectation, by itself: an `ExpectationSuite` would drop what it does not know without a word.

    Raises:
        pydantic (version 1) ValidationError: wrong arguments.
    """
    import great_expectations.expectations.core  # noqa: F401  fills the registry

    expectation = ExpectationConfiguration(type=kind, kwargs=dict(kwargs), **about).to_domain_obj()
    expectation.batch_id = BATCH
    return expectation


@_quiet()
def translate(
    engine: Engine, expectation: Any, failed: Column, only: Column | None, predicate: Column | None
) -> Translated:
    """Take an expectation apart.

    Args:
        failed: the boolean that the judged frame will hold for this rule; the counts are made of it.
        only: a further condition for the rows to be judged and counted (rows that delete are not); None: all.
        predicate: of an SQL rule, true where a row is bad.

    Raises:
        NeedsRows: it cannot be counted in one pass.
        Exception: whatever Great Expectations or Spark's analysis say about its columns and types.
    """
    wanted = _wanted(engine, expectation)
    graph = _graph(engine, wanted)
    if predicate is not None:
        return _sql_rule(expectation, graph, wanted, failed, only, predicate)
    nodes = {node.id: node for edge in graph.edges for node in (edge.left, edge.right) if node is not None}
    first = [n for n in nodes.values() if n.metric_name.endswith(_PARTIAL) or n.metric_name in _SCHEMA_METRICS]
    later = {n.id: Unknown(n.metric_name) for n in nodes.values() if n not in first}
    known = {key: value for key, value in _fill(_graph(engine, first), later).items() if key not in later}
    made = Translated(expectation, graph, known)
    _add_rule(engine, made, wanted, failed, only)
    _add_aggregates(engine, made, nodes, only)
    with engine.blinded():
        _fill(graph, {**known, **dict.fromkeys(made.numbers, 1)})
    return made


@_quiet()
def validate(engine: Engine, made: Translated, numbers: Mapping[MetricId, Any]) -> Any:
    """The ExpectationValidationResult, by Great Expectations' own validation of the counted numbers. Runs no job."""
    with engine.blinded():
        metrics = _fill(made.graph, {**made.known, **numbers})
        result = made.expectation.metrics_validate(metrics, runtime_configuration={**_FORMAT}, execution_engine=engine)
    result.expectation_config = made.expectation.configuration
    return result


def _wanted(engine: Engine, expectation: Any) -> list[Any]:
    dependencies = expectation.get_validation_dependencies(execution_engine=engine, runtime_configuration={**_FORMAT})
    return list(dependencies.get_metric_configurations())


def _graph(engine: Engine, metrics: list[Any]) -> Any:
    graph = ValidationGraph(execution_engine=engine)
    for metric in metrics:
        graph.build_metric_dependency_graph(metric_configuration=metric, runtime_configuration={**_FORMAT})
    return graph


def _fill(graph: Any, known: Mapping[MetricId, Any]) -> dict[MetricId, Any]:
    """Resolve what can be resolved from `known`; the cause of a failure is raised, not the library's wrapping of it."""
    values = dict(known)
    try:
        graph._resolve(
            metrics=values, runtime_configuration={**_FORMAT, "catch_exceptions": False}, show_progress_bars=False
        )
    except MetricResolutionError as error:
        raise (error.__cause__ or error) from None
    return values


def _sql_rule(
    expectation: Any, graph: Any, wanted: list[Any], failed: Column, only: Column | None, predicate: Column
) -> Translated:
    """The one expectation whose condition is the author's own SQL; its result is still Great Expectations'."""
    made = Translated(expectation, graph, {}, condition=predicate, domain=only)
    for metric in wanted:
        if metric.metric_name == _SQL_COUNT:
            made.numbers[metric.id] = F.count(F.when(failed, 1))
        elif metric.metric_name == _SQL_ROWS:
            made.known[metric.id] = []
    return made


def _add_rule(engine: Engine, made: Translated, wanted: list[Any], failed: Column, only: Column | None) -> None:
    name = getattr(made.expectation, "map_metric", None)
    found = next(((key, value) for key, value in made.known.items() if key[0] == f"{name}.condition"), None)
    if found is None:
        return  # the "of type" expectations have none on Spark: they look at the schema
    made.condition, compute, accessor = found[1]
    if getattr(made.expectation, "row_condition", None) is not None and compute.get("row_condition") is None:
        raise NeedsRows("Great Expectations leaves out its row_condition; use unexpected_rows_expectation")
    made.domain = _both(engine.domain({**compute, **accessor}), only)
    for metric in wanted:
        if metric.metric_name == f"{name}.unexpected_count":
            made.numbers[metric.id] = _unexpected(made.graph, metric.id, failed)
        elif metric.metric_name.endswith(".filtered_row_count"):
            made.numbers[metric.id] = F.count(F.lit(1) if made.domain is None else F.when(made.domain, 1))
        elif metric.metric_name == f"{name}.unexpected_values":
            made.known[metric.id] = []


def _unexpected(graph: Any, metric: MetricId, failed: Column) -> Column:
    """Great Expectations sums where it bundles metrics (null over no rows), and counts where it filters (0)."""
    bundled = any(
        edge.left.id == metric and edge.right is not None and edge.right.metric_name.endswith(".aggregate_fn")
        for edge in graph.edges
    )
    return F.sum(F.when(failed, 1).otherwise(0)) if bundled else F.count(F.when(failed, 1))


def _add_aggregates(engine: Engine, made: Translated, nodes: Mapping[MetricId, Any], only: Column | None) -> None:
    for edge in made.graph.edges:
        if edge.right is None or not edge.right.metric_name.endswith(".aggregate_fn") or edge.left.id in made.numbers:
            continue
        aggregate, compute, accessor = made.known[edge.right.id]
        domain = _both(engine.domain(compute), only)
        if domain is not None:
            aggregate = _within(engine, made, nodes[edge.right.id], domain, accessor)
        made.numbers[edge.left.id] = aggregate


def _within(engine: Engine, made: Translated, metric: Any, domain: Column, accessor: Mapping[str, Any]) -> Column:
    """The aggregate over the rows of `domain` only, without a filter: that would be a pass of its own."""
    name = metric.metric_name.removesuffix(".aggregate_fn")
    if name == "table.row_count":
        return F.count(F.when(domain, 1))
    if name.endswith(".unexpected_count"):
        rule = name.removesuffix("unexpected_count") + "condition"
        condition = next(v[0] for k, v in made.known.items() if k[0] == rule and k[1] == metric.id[1])
        return F.sum(F.when(surely(domain & condition), 1).otherwise(0))
    if "column" not in accessor:
        raise NeedsRows(f"{name} cannot be cut to some of the rows in one pass")
    # Every column aggregate skips nulls, so a value that is null outside of the domain is a value left out; the
    # function under the library's decorators is the one that takes the Column.
    provider, function = get_metric_provider(metric_name=metric.metric_name, execution_engine=engine)
    cut = F.when(domain, F.col(accessor["column"]))
    aggregate: Column = inspect.unwrap(function)(
        provider,
        column=cut,
        **(metric.metric_value_kwargs or {}),
        _table=engine.empty,
        _column_name=accessor["column"],
        _metrics=made.known,
    )
    return aggregate


def _both(left: Column | None, right: Column | None) -> Column | None:
    if left is None or right is None:
        return right if left is None else left
    return left & right
