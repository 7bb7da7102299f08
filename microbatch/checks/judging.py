"""A plan that is ready: rules as bits of one mask, counts as aggregates of one pass, results from those counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from microbatch.checks.suite import Entry
from microbatch.checks.wording import requirement
from microbatch.outcome import HIDDEN, Result

if TYPE_CHECKING:
    from microbatch.checks.engine import Engine
    from microbatch.checks.graph import MetricId, Translated

BITS = 64  # rules that fit into one long
REASONS = "array<struct<expectation: string, column: string, severity: string, message: string>>"
MASK = "_failed_"
_WINDOW = "_gx_window_"
_NUMBER = "_gx_"


@dataclass(frozen=True)
class Rule:
    """A row-level expectation.

    Attributes:
        column: the columns it looks at, comma-joined.
        mostly: the share of rows that must pass, where the file gives it (1.0 too): then a batch below it stops.
        index: its bit, counted over all masks.
        message: makes the sentence with the found values, over the judged frame.
    """

    expectation_id: str
    expectation: str
    column: str
    severity: str
    mostly: float | None
    index: int
    message: Callable[[], Column]

    @property
    def failed(self) -> Column:
        """True where the row broke this rule, over the judged frame; never null."""
        return bit(self.index)


@dataclass(frozen=True)
class Check:
    """One expectation with its Columns.

    Attributes:
        scope: tells apart the same metric over different rows of the batch.
        hidden: it looks at a masked column: what is observed there, a maximum say, is a value of some row.
    """

    entry: Entry
    column: str
    made: Translated
    scope: str
    rule: Rule | None
    hidden: bool


def bit(index: int) -> Column:
    """Whether rule `index` failed, over the judged frame."""
    return F.getbit(F.col(f"{MASK}{index // BITS}"), F.lit(index % BITS)) == 1


def _flag(index: int) -> int:
    position = index % BITS
    return -(1 << 63) if position == BITS - 1 else 1 << position  # the last bit of a long is its sign


class Plan:
    """What one flow expects of each of its batches. Built once a run; its Columns belong to no session and no frame.

    Args:
        engine: None where there is nothing to check: then Great Expectations is not imported.
    """

    def __init__(self, engine: Engine | None, checks: Sequence[Check]) -> None:
        self._engine, self._checks = engine, tuple(checks)
        self.rules = tuple(check.rule for check in checks if check.rule is not None)
        self.mask_columns = tuple(f"{MASK}{number}" for number in range(max(1, -(-len(self.rules) // BITS))))
        numbers: dict[tuple[MetricId, str], Column] = {}
        for check in checks:
            for metric, column in check.made.numbers.items():
                numbers.setdefault((metric, check.scope), column)
        self._names = {key: f"{_NUMBER}{position}" for position, key in enumerate(numbers)}
        self._numbers = numbers
        self._late = frozenset(key for key, column in numbers.items() if "DISTINCT" in str(column))

    def of_rows(self) -> Plan:
        """The same rules of rows, each row by itself: without what is said of the whole batch, and heedless of `mostly`."""
        alone = [replace(check, rule=replace(check.rule, mostly=None)) for check in self._checks if check.rule]
        return Plan(self._engine, alone)

    def judge(self, df: DataFrame) -> DataFrame:
        """`df` with the masks of failed rules: bit `index % 64` of `_failed_<index // 64>`, never null. Runs no job.

        A uniqueness rule makes Spark shuffle the batch below the masks.
        """
        windows, masks = self._flags
        frame = df.withColumns(windows) if windows else df
        return frame.withColumns(masks).drop(*windows)

    @cached_property
    def _flags(self) -> tuple[dict[str, Column], dict[str, Column]]:
        """The columns of `judge`: conditions that need a window, and the masks. Made once: each costs calls into the JVM."""
        made = [(rule, check.made) for check in self._checks if (rule := check.rule) is not None]
        windows = {f"{_WINDOW}{rule.index}": part.failed() for rule, part in made if part.window}
        failed = {rule.index: F.col(f"{_WINDOW}{rule.index}") if part.window else part.failed() for rule, part in made}
        masks = {}
        for number, name in enumerate(self.mask_columns):
            mine = [index for index in failed if index // BITS == number]
            flags = [
                F.when(failed[index], F.lit(_flag(index)).cast("long")).otherwise(F.lit(0).cast("long"))
                for index in mine
            ]
            masks[name] = reduce(lambda left, right: left.bitwiseOR(right), flags) if flags else F.lit(0).cast("long")
        return windows, masks

    @cached_property
    def leaves(self) -> Column:
        """True where a critical rule failed, so the row goes to quarantine; over the judged frame, never null."""
        critical = [
            sum(1 << (r.index % BITS) for r in self.rules if r.severity == "critical" and r.index // BITS == number)
            for number in range(len(self.mask_columns))
        ]
        hits = [
            F.col(name).bitwiseAND(F.lit(bits - (1 << BITS) if bits >> (BITS - 1) else bits).cast("long")) != 0
            for name, bits in zip(self.mask_columns, critical, strict=True)
            if bits
        ]
        return reduce(lambda left, right: left | right, hits) if hits else F.lit(False)

    def metrics(self) -> list[Column]:
        """The counts and aggregates, for one `observe` or `agg` over the judged frame; names start with `_gx_`."""
        return self._metrics

    @cached_property
    def _metrics(self) -> list[Column]:
        return [column.alias(self._names[key]) for key, column in self._numbers.items() if key not in self._late]

    def late(self) -> list[Column]:
        """Those that `observe` does not take (counts of distinct values): one `agg` over the pinned judged frame."""
        return [column.alias(self._names[key]) for key, column in self._numbers.items() if key in self._late]

    def evrs(self, values: Mapping[str, Any]) -> list[Any]:
        """Great Expectations' ExpectationValidationResult of each expectation, in order. Runs no job.

        Args:
            values: what `metrics` and `late` gave, by name.
        """
        if self._engine is None:
            return []
        engine = self._engine
        from microbatch.checks.graph import validate

        found = {key: values[name] for key, name in self._names.items()}
        return [
            validate(engine, check.made, {m: found[m, check.scope] for m in check.made.numbers})
            for check in self._checks
        ]

    def results(self, values: Mapping[str, Any]) -> tuple[Result, ...]:
        """One `Result` an expectation, in order, those on keys last. `values` as for `evrs`."""
        return tuple(
            self._result(check, evr, values) for check, evr in zip(self._checks, self.evrs(values), strict=True)
        )

    def reasons(self) -> Column:
        """All broken rules of a row as array<struct<expectation, column, severity, message: string>>.

        Over the judged frame, and dear: for the rows that leave.
        """
        made = [
            F.when(
                rule.failed,
                F.struct(
                    F.lit(rule.expectation).alias("expectation"),
                    F.lit(rule.column).alias("column"),
                    F.lit(rule.severity).alias("severity"),
                    rule.message().alias("message"),
                ),
            )
            for rule in self.rules
        ]
        return F.array_compact(F.array(*made)).cast(REASONS) if made else F.array().cast(REASONS)

    def stops(self, results: Sequence[Result]) -> tuple[str, ...]:
        """A sentence for each result that stops the batch; empty: go on.

        A critical table-level expectation that failed, and a critical rule with `mostly` that too few rows passed.
        """
        return self._said(results, lambda rule: rule is None or rule.mostly is not None, "critical")

    def warnings(self, results: Sequence[Result]) -> tuple[str, ...]:
        """A sentence for each failed expectation at `warning`."""
        return self._said(results, lambda rule: True, "warning")

    def _said(self, results: Sequence[Result], counts: Callable[[Rule | None], bool], severity: str) -> tuple[str, ...]:
        checks = {check.entry.id: check for check in self._checks}
        return tuple(
            _sentence(checks[result.expectation_id], result)
            for result in results
            if not result.success and result.severity == severity and counts(checks[result.expectation_id].rule)
        )

    def _result(self, check: Check, evr: Any, values: Mapping[str, Any]) -> Result:
        entry, found = check.entry, evr.result
        evaluated = unexpected = observed = None
        if check.rule is not None:
            rows = self._names.get((ROWS, check.scope))
            evaluated = int(found.get("element_count", values[rows] if rows else 0) or 0)
            unexpected = int(found.get("unexpected_count", found.get("observed_value")) or 0)
        elif found.get("observed_value") is not None:
            observed = HIDDEN if check.hidden else _text(found["observed_value"])
        return Result(
            entry.id, entry.type, check.column, entry.severity, bool(evr.success), evaluated, unexpected, observed
        )


ROWS: MetricId = ("rows", "", "")
"""The number of rows in scope: what an SQL rule looked at, which Great Expectations does not say."""


def _sentence(check: Check, result: Result) -> str:
    named = f"{result.expectation} ({result.expectation_id}): {requirement(check.entry.type, check.entry.kwargs)}"
    if result.unexpected is None:
        return f"{named}, but it does not" if result.observed is None else f"{named}, observed {result.observed}"
    asked = "" if check.rule is None or check.rule.mostly is None else f", and mostly is {check.rule.mostly}"
    return f"{named}; {result.unexpected} of {result.evaluated} rows break it{asked}"


def _text(value: Any) -> str:
    return json.dumps(value, default=str) if isinstance(value, list | dict | set | tuple) else str(value)
