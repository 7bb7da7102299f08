"""How each flow of a job stands, from the ledger, the runs, the letters and the checkpoints. No JVM."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from microbatch.config import LoadedJob, Suite
from microbatch.job import Flow, Source, tables_read
from microbatch.runner.alerts import Active, active
from microbatch.runner.figures import LEDGER, Row, behind, hours, newest, open_letters, sums
from microbatch.sink import ops


@dataclass(frozen=True)
class Standing:
    """How one flow stands; the keys of `status --json`, which stay as they are.

    Attributes:
        last_status: of the last run that had to do with the flow: done, failed, waiting (a flow it depends on failed) or
            unfinished (it runs, or it was killed); None before the first.
        rows_read, rows_written, rows_quarantined, rows_superseded: of that run. What did not parse counts as quarantined.
        all_rows_read, …: of all runs.
        lag: files or table versions not taken in yet; None where that cannot be known, and `error` says why.
        freshness_h: hours since the newest file or commit that was taken in.
        open_quarantine: letters nobody has replayed or discarded.
        oldest_letter_h: hours since the oldest of those was written.
        sla_met: of the last run; None without an SLA.
        lag_rows: rows not taken in yet; None where the source counts no rows before it is read.
        duration_s: seconds its batches took in the last run.
        sla_m: minutes that a run of the job may take; None without an SLA.
        alerts: those of the job that are on, each with when, severity, since, value, undelivered.
        lag_bytes: log that a PostgreSQL server keeps until the flow has read it; None where none does.
    """

    job: str
    flow: str
    last_run_id: str | None
    last_run_at: str | None
    last_status: str | None
    rows_read: int
    rows_written: int
    rows_quarantined: int
    rows_superseded: int
    all_rows_read: int
    all_rows_written: int
    all_rows_quarantined: int
    all_rows_superseded: int
    lag: int | None
    freshness_h: float | None
    open_quarantine: int
    oldest_letter_h: float | None
    sla_met: bool | None
    last_error: str | None
    error: str | None
    lag_rows: int | None
    duration_s: float | None
    sla_m: float | None
    alerts: tuple[Active, ...]
    lag_bytes: int | None


KEYS = tuple(field.name for field in fields(Standing))
"""The keys of an object of `status --json`."""


def standings(suite: Suite, job: LoadedJob, now: datetime) -> list[Standing]:
    """How each flow of a job stands, in the order of its flows."""
    warehouse, mine = suite.environment.storage["warehouse"], [("job", "=", job.name)]
    ledger = ops.rows(warehouse, "batches", mine, only=LEDGER)
    runs = {run["run_id"]: run for run in ops.rows(warehouse, "runs", mine)}
    letters = open_letters(warehouse, job.name)
    on = active(warehouse, job)
    return [_standing(suite, job, flow, ledger, runs, letters.get(flow.name), on, now) for flow in job.flows]


def _standing(
    suite: Suite,
    job: LoadedJob,
    flow: Flow,
    ledger: Sequence[Row],
    runs: Mapping[str, Row],
    letters: Row | None,
    on: tuple[Active, ...],
    now: datetime,
) -> Standing:
    mine = [batch for batch in ledger if batch["flow"] == flow.name]
    run_id, status = _last_run(job, flow, ledger, runs)
    run = runs.get(run_id or "")
    of_run = [batch for batch in mine if batch["run_id"] == run_id]
    started = run["started_at"] if run else min((batch["started_at"] for batch in of_run), default=None)
    waits = behind(suite, job, flow)
    return Standing(
        job=job.name,
        flow=flow.name,
        last_run_id=run_id,
        last_run_at=started.isoformat(timespec="seconds") if started else None,
        last_status=status,
        **sums(of_run),
        **sums(mine, "all_"),
        lag=waits.pending,
        freshness_h=hours(newest(mine, flow.name), now),
        open_quarantine=letters["count"] if letters else 0,
        oldest_letter_h=hours(letters["oldest"], now) if letters else None,
        sla_met=run["sla_met"] if run else None,
        last_error=run["error"] if run and status == "failed" else None,
        error=waits.error,
        lag_rows=waits.rows,
        duration_s=sum(batch["duration_ms"] for batch in of_run) / 1000 if of_run else None,
        sla_m=job.conf.schedule.sla_m if job.conf.schedule else None,
        alerts=on,
        lag_bytes=waits.log_bytes,
    )


def _last_run(
    job: LoadedJob, flow: Flow, ledger: Sequence[Row], runs: Mapping[str, Row]
) -> tuple[str | None, str | None]:
    """The newest run that had to do with the flow, and how it ended for this flow.

    `ops.runs` knows jobs, not flows: a failed flow is the one whose name or source the error holds.
    """
    worked: dict[str, list[Row]] = {}
    for batch in ledger:
        worked.setdefault(batch["run_id"], []).append(batch)
    begun = {run_id: min(batch["started_at"] for batch in batches) for run_id, batches in worked.items()}
    begun |= {run_id: run["started_at"] for run_id, run in runs.items()}
    for run_id in sorted(begun, key=lambda each: begun[each], reverse=True):
        took_part = any(batch["flow"] == flow.name for batch in worked.get(run_id, ()))
        if run_id not in runs:
            if took_part:
                return run_id, "unfinished"
            continue
        failed = _failed(job, runs[run_id])
        if flow.name in failed:
            return run_id, "failed"
        if took_part:
            return run_id, "done"
        if _depends(job, flow, failed):
            return run_id, "waiting"
    return None, None


def _failed(job: LoadedJob, run: Row) -> set[str]:
    """The flows a run failed at; all of the job where its error names none."""
    if run["status"] != "failed":
        return set()
    error = run["error"] or ""
    named = {
        flow.name
        for flow in job.flows
        if re.search(rf"\bflow {flow.name}\b", error)
        or (isinstance(flow.reads, Source) and re.search(rf"\bsource {flow.reads.name}\b", error))
    }
    return named or {flow.name for flow in job.flows}


def _depends(job: LoadedJob, flow: Flow, failed: set[str]) -> bool:
    lost = {each.writes.table for each in job.flows if each.name in failed}
    for each in job.flows:  # in the order their tables require: one pass reaches all that depend
        if lost.intersection(tables_read(each)):
            lost.add(each.writes.table)
    return flow.writes.table in lost
