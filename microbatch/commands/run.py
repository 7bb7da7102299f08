"""`microbatch run`: take in all that is there, and say what became of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

from microbatch.commands.render import columns
from microbatch.config import Suite
from microbatch.observers import Bar, JsonLines, Lines, Observer
from microbatch.runner import FlowRun, Report, run
from microbatch.runner.accept import Accept

Log = Literal["text", "json"]


def execute(
    suite: Suite,
    jobs: Sequence[str],
    flows: Sequence[str] = (),
    accept: Accept | None = None,
    log: Log | None = None,
    on: bool = False,
) -> Report:
    """Run the jobs with a progress bar on a terminal, plain lines elsewhere, and print the closing table to stdout.

    Args:
        on: go on until a stop is asked for.
        log: how stderr is written, whatever it is: lines for people, or an object of JSON a line.
    """
    report = run(suite, jobs, flows=flows, accept=accept, observer=_observer(log, on), on=on)
    print(closing(report))
    for hint in hints(report):
        print(hint)
    return report


def _observer(log: Log | None, on: bool) -> Observer:
    if log == "json":
        return JsonLines()
    return Bar() if log is None and not on and sys.stderr.isatty() else Lines()


def closing(report: Report) -> str:
    """The closing table: a line a flow, and their sum."""
    rows = [_line(flow) for flow in report.flows]
    if len(rows) > 1:
        rows.append(["total", "", *[sum(row[i] for row in rows) for i in range(2, len(rows[0]))]])  # type: ignore[misc]
    return columns(("flow", "state", "batches", "read", "written", "quarantined", "superseded", "seconds"), rows)


def hints(report: Report) -> list[str]:
    """Where to look next."""
    said = []
    jobs = sorted({flow.job for flow in report.flows})
    if not report.outcomes and not report.errors:
        said.append("nothing to do: every source and table was taken in before; no table was changed")
    for job in jobs:
        mine = [outcome for outcome in report.outcomes if outcome.job == job]
        if any(outcome.rows_quarantined + outcome.rows_unparsed for outcome in mine):
            said.append(f"quarantined rows, with their reasons: microbatch quarantine list {job}")
        failed = {r.expectation_id: r for o in mine for r in o.results if not r.success and r.severity == "warning"}
        said += [
            f"warning: {job}: {r.expectation} ({r.column or 'table'}) did not hold: {r.unexpected or r.observed}"
            for r in failed.values()
        ]
        if mine:
            said.append(f"proof that nothing was lost or doubled: microbatch audit {job}")
    return said


def _line(flow: FlowRun) -> list[object]:
    sums = [
        sum(counts)
        for counts in zip(
            *[
                (o.rows_read, o.rows_written, o.rows_quarantined + o.rows_unparsed, o.rows_superseded)
                for o in flow.outcomes
            ],
            strict=True,
        )
    ] or [0, 0, 0, 0]
    seconds = sum(outcome.duration_ms for outcome in flow.outcomes) / 1000
    return [f"{flow.job}.{flow.flow}", flow.state, flow.batches, *sums, seconds]
