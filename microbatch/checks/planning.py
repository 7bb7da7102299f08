"""From a suite and the columns of a flow to a `Plan`, or to every reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from microbatch.checks import graph, refusals
from microbatch.checks.arguments import rule_kwargs
from microbatch.checks.catalogue import NOT_NULL, SQL_RULE, UNIQUE
from microbatch.checks.engine import Engine
from microbatch.checks.judging import ROWS, Check, Plan, Rule, bit
from microbatch.checks.predicate import predicate_of
from microbatch.checks.suite import Entry, ExpectationFile
from microbatch.checks.wording import columns_of, message, requirement
from microbatch.errors import ConfigError, Problem
from microbatch.outcome import masks


class Refused(Exception):
    """The sentence says why an expectation cannot be planned."""


def build(
    file: ExpectationFile | None,
    empty: DataFrame,
    not_null: Sequence[str],
    only_keys_when: str | None,
    mask: Sequence[str],
) -> Plan:
    """See `microbatch.checks.plan`."""
    planner = _Planner(file, empty, not_null, only_keys_when, mask)
    for entry in (*(file.entries if file else ()), *planner.implicit()):
        planner.take(entry)
    plan = Plan(planner.engine, planner.checks)
    if not planner.problems:
        planner.probe(plan)
    if planner.problems:
        raise ConfigError(*planner.problems)
    return plan


class _Planner:
    def __init__(
        self,
        file: ExpectationFile | None,
        empty: DataFrame,
        not_null: Sequence[str],
        only_keys_when: str | None,
        mask: Sequence[str],
    ) -> None:
        self.file, self.empty, self.keys, self.mask = file, empty, tuple(not_null), tuple(mask)
        self.engine = Engine(empty)
        self.problems: list[Problem] = []
        self.checks: list[Check] = []
        self.kept = self._kept(only_keys_when)

    def implicit(self) -> list[Entry]:
        """A critical not-null for each key that the file does not hold to it: a null in a key matches nothing."""
        covered = {
            str(entry.kwargs.get("column")).lower()
            for entry in (self.file.entries if self.file else ())
            if entry.type == NOT_NULL and entry.severity == "critical" and not entry.kwargs.get("row_condition")
        }
        missing = [key for key in dict.fromkeys(self.keys) if key.lower() not in covered]
        return [Entry(NOT_NULL, {"column": key}, "critical", {}, f"key/{key}", None, 0) for key in missing]

    def take(self, entry: Entry) -> None:
        reasons = list(refusals.by_schema(entry, self.empty.schema))
        if not reasons:
            try:
                self.checks.append(self._check(entry))
                return
            except Refused as refused:
                reasons = [str(refused)]
            except (
                Exception
            ) as error:  # whatever a library says about a suite, its author must learn it, and all at once
                reasons = [refusals.explain(error, self.empty.columns)]
        for reason in reasons:
            self._say(entry, reason)

    def probe(self, plan: Plan) -> None:
        """Hold one made-up row against all rules, in one job: an invalid pattern or cast shows only when it runs."""
        if not self.checks:
            return
        one = refusals.sample(self.empty.schema, self.empty.sparkSession)
        try:
            self._run(one, plan, self.checks)
        except Exception:  # which one it was is found below
            for check in self.checks:
                try:
                    self._run(one, Plan(self.engine, [check]), [check])
                except Exception as error:  # as above: any error of the row is a reason to refuse
                    self._say(check.entry, refusals.at_run_time(error, self.empty.columns))

    def _run(self, one: DataFrame, plan: Plan, checks: Sequence[Check]) -> None:
        apart: list[Column] = []  # a condition behind a false domain would not be evaluated, so each is asked by itself
        for check in checks:
            if check.made.condition is not None and not check.made.window:
                apart += [part for part in (check.made.condition, check.made.domain) if part is not None]
        columns = [*plan.metrics(), *plan.late(), *(F.max(part) for part in apart)]
        if columns:
            plan.judge(one).agg(*columns).collect()

    def _kept(self, only_keys_when: str | None) -> Column | None:
        """The rows that do not delete. A null condition deletes nothing."""
        if only_keys_when is None:
            return None
        try:
            condition = F.expr(f"({only_keys_when})")
            self.empty.filter(F.expr(only_keys_when))
            seen = refusals.by_plan(self.empty, condition, None, is_predicate=True)
            if seen.reason:
                raise Refused(seen.reason)
            return ~graph.surely(condition)
        except Exception as error:  # any error of the author's SQL is theirs to read
            self.problems.append(Problem("delete_when", refusals.explain(error, self.empty.columns)))
            return None

    def _check(self, entry: Entry) -> Check:
        predicate = F.expr(f"({self._sql(entry)})") if entry.type == SQL_RULE else None
        columns = columns_of(entry.kwargs) if predicate is None else self._references(predicate)
        keys = {key.lower() for key in self.keys}
        judged_always = all(str(name).lower() in keys for name in columns)
        only = None if judged_always else self.kept
        if entry.type in UNIQUE and only is not None:
            raise Refused(
                "uniqueness would count the rows that delete; let the keys of the target keep the table unique"
            )
        index = sum(check.rule is not None for check in self.checks)
        expectation = graph.build(
            entry.type,
            rule_kwargs(entry.kwargs),
            severity=entry.severity,
            meta=dict(entry.meta),
            id=entry.id,
            **({"description": entry.description} if entry.description else {}),
        )
        made = graph.translate(self.engine, expectation, bit(index), only, predicate)
        if made.condition is not None:
            seen = refusals.by_plan(self.empty, made.failed(), made.domain, is_predicate=False)
            made.window = seen.window
            if seen.reason:
                raise Refused(seen.reason)
        elif made.numbers:
            self.empty.agg(*made.numbers.values())  # analysed here, so that a wrong type is this expectation's problem
        if predicate is not None:
            made.numbers[ROWS] = F.count(F.lit(1) if only is None else F.when(only, 1))
        scope = "all" if only is None else "kept"
        named = ",".join(str(name) for name in columns)
        rule = None if made.condition is None else self._rule(entry, columns, named, index)
        return Check(entry, named, made, scope, rule, hidden=masks(self.mask, map(str, columns)))

    def _rule(self, entry: Entry, columns: Sequence[str], named: str, index: int) -> Rule:
        mostly: Any = entry.kwargs.get("mostly")
        required = entry.description or requirement(entry.type, entry.kwargs)
        return Rule(
            entry.id,
            entry.type,
            named,
            entry.severity,
            None if mostly is None else float(mostly),
            index,
            lambda: message(required, columns, self.mask),
        )

    def _sql(self, entry: Entry) -> str:
        sql = predicate_of(entry.kwargs["unexpected_rows_query"])
        self.empty.filter(F.expr(sql))  # alone too: brackets around `a) OR (b` would hide what it is
        return sql

    def _references(self, predicate: Column) -> tuple[str, ...]:
        """The columns an SQL rule looks at, in the frame's order."""
        seen = refusals.by_plan(self.empty, predicate, None, is_predicate=True)
        if seen.reason or seen.window:
            raise Refused(seen.reason or "looks at other rows of the batch; write a condition over one row")
        analysed = self.empty.filter(predicate)._jdf.queryExecution().analyzed()
        found = analysed.condition().references().iterator()
        names = set()
        while found.hasNext():
            names.add(found.next().name())
        return tuple(name for name in self.empty.columns if name in names)

    def _say(self, entry: Entry, reason: str) -> None:
        where = self.file.where(entry) if self.file and entry.line is not None else "keys"
        columns = ", ".join(str(name) for name in columns_of(entry.kwargs))
        self.problems.append(Problem(where, f"{entry.type}{f' {columns}' if columns else ''}: {reason}"))
