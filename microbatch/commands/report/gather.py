"""What the page shows of a job, out of the tables of schema `ops`, with conf and code for the names and the limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from microbatch.checks.wording import requirement
from microbatch.commands.report.letters import Reason, reasons
from microbatch.commands.report.series import MOST_POINTS, groups, steps
from microbatch.config import LoadedJob, Suite
from microbatch.runner.alerts import Active, active
from microbatch.runner.figures import LEDGER, awaited
from microbatch.runner.standings import Standing, standings
from microbatch.sink import ops

MOST_RUNS = 50  # in the table; the chart has more
Row = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """One expectation over all batches that were judged by it.

    Attributes:
        demand: in words, as of today's expectation file; its type where the file no longer has it.
        why: the file's own reason.
        trend: the share of rows that broke it, or of batches that failed it, in the order of the batches.
    """

    flow: str
    expectation: str
    demand: str
    why: str
    column: str
    severity: str
    evaluated: int | None
    unexpected: int | None
    observed: str | None
    batches: int
    failed: int
    holds: bool
    trend: tuple[float, ...]

    @property
    def share(self) -> float:
        """Of the rows that broke it, else of the batches that failed it."""
        if self.evaluated:
            return (self.unexpected or 0) / self.evaluated
        return self.failed / self.batches


@dataclass(frozen=True)
class JobFound:
    """All that a page says of one job. `runs` and each list of steps go forward in time."""

    job: LoadedJob
    standings: list[Standing]
    last_run: Row | None
    last_read: int
    last_quarantined: int
    freshness_h: float | None
    open_letters: int
    alerts: tuple[Active, ...]
    steps: dict[str, list[dict[str, Any]]]
    runs: list[Row]
    rules: list[Rule]
    reasons: list[Reason]
    more_reasons: int
    lineage: list[Row]

    @property
    def broken(self) -> list[Rule]:
        """The rules that some batch broke, the worst first."""
        worst = [rule for rule in self.rules if rule.failed or rule.unexpected]
        return sorted(worst, key=lambda rule: (-rule.share, -(rule.unexpected or 0), rule.flow, rule.demand))

    @property
    def kept(self) -> list[Rule]:
        """The rules that every batch kept."""
        return [rule for rule in self.rules if not rule.failed and not rule.unexpected]


def gather(suite: Suite, job: LoadedJob, now: datetime) -> JobFound:
    """Read what there is about a job."""
    warehouse, mine = suite.environment.storage["warehouse"], [("job", "=", job.name)]
    ledger = sorted(ops.rows(warehouse, "batches", mine, only=LEDGER), key=lambda batch: batch["started_at"])
    runs = sorted(ops.rows(warehouse, "runs", mine), key=lambda run: run["started_at"])
    found = standings(suite, job, now)
    last = next((run for run in reversed(runs) if run["status"] != "rewound"), None)  # a rewind is no run
    of_last = [each for each in found if last and each.last_run_id == last["run_id"]]
    watched = {flow.name for flow in awaited(job)}
    ages = [each.freshness_h for each in found if each.flow in watched and each.freshness_h is not None]
    told, more = reasons(suite, job)
    by_flow = {flow.name: [batch for batch in ledger if batch["flow"] == flow.name] for flow in job.flows}
    return JobFound(
        job=job,
        standings=found,
        last_run=last,
        last_read=sum(each.rows_read for each in of_last),
        last_quarantined=sum(each.rows_quarantined for each in of_last),
        freshness_h=max(ages, default=None),
        open_letters=sum(each.open_quarantine for each in found),
        alerts=active(warehouse, job),
        steps={name: steps(batches) for name, batches in by_flow.items()},
        runs=runs,
        rules=_rules(warehouse, job, ledger),
        reasons=told,
        more_reasons=more,
        lineage=ops.rows(warehouse, "lineage", mine),
    )


def _rules(warehouse: str, job: LoadedJob, ledger: Sequence[Row]) -> list[Rule]:
    order = {(batch["flow"], batch["query_id"], batch["batch_id"]): at for at, batch in enumerate(ledger)}
    wanted = ("flow", "query_id", "batch_id", "expectation_id", "expectation", "column", "severity", "success")
    rows = ops.rows(
        warehouse, "expectations", [("job", "=", job.name)], only=(*wanted, "evaluated", "unexpected", "observed")
    )
    rows.sort(key=lambda row: order.get((row["flow"], row["query_id"], row["batch_id"]), -1))
    by_rule: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        by_rule.setdefault((row["flow"], row["expectation_id"], row["expectation"]), []).append(row)
    return [_rule(job, results) for results in by_rule.values()]


def _rule(job: LoadedJob, results: Sequence[Row]) -> Rule:
    last = results[-1]
    file = job.expectations.get(last["flow"])
    entry = (
        next((e for e in file.entries if (e.id, e.type) == (last["expectation_id"], last["expectation"])), None)
        if file
        else None
    )
    demand = requirement(entry.type, entry.kwargs) if entry else last["expectation"].replace("_", " ")
    of_rows = last["evaluated"] is not None
    return Rule(
        flow=last["flow"],
        expectation=last["expectation"],
        demand=demand,
        why=str(entry.meta.get("why", "")) if entry else "",
        column=last["column"],
        severity=last["severity"],
        evaluated=sum(row["evaluated"] or 0 for row in results) if of_rows else None,
        unexpected=sum(row["unexpected"] or 0 for row in results) if of_rows else None,
        observed=last["observed"],
        batches=len(results),
        failed=sum(not row["success"] for row in results),
        holds=bool(last["success"]),
        trend=tuple(_share(group) for group in groups(results, MOST_POINTS)),
    )


def _share(results: Sequence[Row]) -> float:
    evaluated = sum(row["evaluated"] or 0 for row in results)
    if evaluated:
        return round(sum(row["unexpected"] or 0 for row in results) / evaluated, 6)
    return round(sum(not row["success"] for row in results) / len(results), 6)
