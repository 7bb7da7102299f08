"""`microbatch status`: how each flow stands, from the ledger, the letters and the checkpoints. No JVM."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from typing import Any

from microbatch.commands.render import columns
from microbatch.config import LoadedJob, Suite
from microbatch.errors import MicrobatchError, redacted
from microbatch.job import Flow, Source, tables_read
from microbatch.runner.inputs import input_of
from microbatch.sink import ops

COUNTS = ("rows_read", "rows_written", "rows_quarantined", "rows_superseded")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Standing:
    """How one flow stands; the keys of `--json`, which stay as they are.

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


def execute(suite: Suite, jobs: Sequence[LoadedJob], as_json: bool = False) -> int:
    """Print how the flows of these jobs stand; 0, also where a source does not answer."""
    now = datetime.now(timezone.utc)
    found = [standing for job in jobs for standing in standings(suite, job, now)]
    print(json.dumps([asdict(standing) for standing in found], indent=2) if as_json else table(found))
    return 0


def standings(suite: Suite, job: LoadedJob, now: datetime) -> list[Standing]:
    """How each flow of a job stands, in the order of its flows."""
    warehouse, mine = suite.environment.storage["warehouse"], [("job", "=", job.name)]
    ledger = ops.rows(warehouse, "batches", mine)
    runs = {run["run_id"]: run for run in ops.rows(warehouse, "runs", mine)}
    letters = _open_letters(warehouse, job)
    return [_standing(suite, job, flow, ledger, runs, letters.get(flow.name), now) for flow in job.flows]


def table(found: Sequence[Standing]) -> str:
    """For people: what the last run did, what all did, and what went wrong."""
    head = ("flow", "last run (UTC)", "status", "read", "written", "quarantined", "superseded")
    rest = ("pending", "fresh_h", "open", "oldest_h", "SLA met")
    last = [
        [f"{s.job}.{s.flow}", s.last_run_at[:16].replace("T", " ") if s.last_run_at else "never", s.last_status]
        + [getattr(s, name) for name in COUNTS]
        + [s.lag, s.freshness_h, s.open_quarantine, s.oldest_letter_h, s.sla_met]
        for s in found
    ]
    ever = [[f"{s.job}.{s.flow}", *[getattr(s, f"all_{name}") for name in COUNTS]] for s in found]
    said = [columns((*head, *rest), last), "", columns(("in all runs", *head[3:]), ever)]
    said += [f"\n{s.job}.{s.flow}: {s.error}" for s in found if s.error]
    errors = dict.fromkeys((s.job, s.last_error) for s in found if s.last_error)
    said += [f"\nlast error of {job}: {error}" for job, error in errors]
    waiting = dict.fromkeys(s.job for s in found if s.open_quarantine)
    said += [f"\nopen letters, with their reasons: microbatch quarantine list {job}" for job in waiting]
    return "\n".join(said)


def _standing(
    suite: Suite,
    job: LoadedJob,
    flow: Flow,
    ledger: Sequence[Row],
    runs: Mapping[str, Row],
    letters: Row | None,
    now: datetime,
) -> Standing:
    mine = [batch for batch in ledger if batch["flow"] == flow.name]
    run_id, status = _last_run(job, flow, ledger, runs)
    run = runs.get(run_id or "")
    of_run = [batch for batch in mine if batch["run_id"] == run_id]
    started = run["started_at"] if run else min((batch["started_at"] for batch in of_run), default=None)
    newest = max((batch["newest_at"] for batch in mine if batch["newest_at"]), default=None)
    lag, error = _lag(suite, job, flow)
    return Standing(
        job=job.name,
        flow=flow.name,
        last_run_id=run_id,
        last_run_at=started.isoformat(timespec="seconds") if started else None,
        last_status=status,
        **_sums(of_run, ""),
        **_sums(mine, "all_"),
        lag=lag,
        freshness_h=_hours(newest, now),
        open_quarantine=letters["count"] if letters else 0,
        oldest_letter_h=_hours(letters["oldest"], now) if letters else None,
        sla_met=run["sla_met"] if run else None,
        last_error=run["error"] if run and status == "failed" else None,
        error=error,
    )


def _sums(batches: Sequence[Row], prefix: str) -> dict[str, int]:
    sums = {name: sum(batch[name] for batch in batches) for name in (*COUNTS, "rows_unparsed")}
    sums["rows_quarantined"] += sums.pop("rows_unparsed")
    return {f"{prefix}{name}": value for name, value in sums.items()}


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


def _lag(suite: Suite, job: LoadedJob, flow: Flow) -> tuple[int | None, str | None]:
    try:
        return input_of(suite, job, flow).pending(), None
    except (MicrobatchError, OSError, ValueError) as error:
        return None, redacted(str(error), suite.secrets)


def _open_letters(warehouse: str, job: LoadedJob) -> dict[str, dict[str, Any]]:
    """By flow: how many letters are open, and when the oldest was written. Payloads are not read."""
    found: dict[str, dict[str, Any]] = {}
    filters = [("job", "=", job.name), ("status", "=", "open")]
    for letter in ops.rows(warehouse, "quarantine", filters, only=("flow", "quarantined_at")):
        standing = found.setdefault(letter["flow"], {"count": 0, "oldest": letter["quarantined_at"]})
        standing["count"] += 1
        standing["oldest"] = min(standing["oldest"], letter["quarantined_at"])
    return found


def _hours(since: datetime | None, now: datetime) -> float | None:
    return None if since is None else round((now - since).total_seconds() / 3600, 2)


KEYS = tuple(field.name for field in fields(Standing))
"""The keys of an object of `--json`."""
