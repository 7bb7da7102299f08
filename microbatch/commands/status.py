"""`microbatch status`: how each flow stands, from the ledger, the letters and the checkpoints. No JVM."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone

from microbatch.commands.render import columns
from microbatch.config import LoadedJob, Suite
from microbatch.runner.alerts import Active, undelivered
from microbatch.runner.figures import COUNTS
from microbatch.runner.standings import KEYS, Standing, standings


def execute(suite: Suite, jobs: Sequence[LoadedJob], as_json: bool = False) -> int:
    """Print how the flows of these jobs stand; 0, also where a source does not answer."""
    now = datetime.now(timezone.utc)
    found = [standing for job in jobs for standing in standings(suite, job, now)]
    if as_json:
        print(json.dumps([asdict(standing) for standing in found], indent=2))
        return 0
    print(table(found))
    for job in jobs:
        for line in undelivered(suite.environment.storage["warehouse"], job):
            print(f"\n{job.name}: an alert could not be sent, and is sent again: {line}")
    return 0


def table(found: Sequence[Standing]) -> str:
    """For people: what the last run did, what all did, and what went wrong."""
    head = ("flow", "last run (UTC)", "status", "read", "written", "quarantined", "superseded")
    rest = ("pending", "rows", "fresh_h", "open", "oldest_h", "SLA met")
    last = [
        [f"{s.job}.{s.flow}", s.last_run_at[:16].replace("T", " ") if s.last_run_at else "never", s.last_status]
        + [getattr(s, name) for name in COUNTS]
        + [s.lag, s.lag_rows, s.freshness_h, s.open_quarantine, s.oldest_letter_h, s.sla_met]
        for s in found
    ]
    ever = [[f"{s.job}.{s.flow}", *[getattr(s, f"all_{name}") for name in COUNTS]] for s in found]
    said = [columns((*head, *rest), last), "", columns(("in all runs", *head[3:]), ever)]
    said += [f"\n{s.job}.{s.flow}: the server keeps {s.lag_bytes:,} bytes of log for it" for s in found if s.lag_bytes]
    said += [f"\n{s.job}.{s.flow}: {s.error}" for s in found if s.error]
    errors = dict.fromkeys((s.job, s.last_error) for s in found if s.last_error)
    said += [f"\nlast error of {job}: {error}" for job, error in errors]
    on = dict.fromkeys((s.job, alert) for s in found for alert in s.alerts)
    said += [f"\n{job}: {_alert(alert)}" for job, alert in on]
    waiting = dict.fromkeys(s.job for s in found if s.open_quarantine)
    said += [f"\nopen letters, with their reasons: microbatch quarantine list {job}" for job in waiting]
    return "\n".join(said)


def _alert(alert: Active) -> str:
    """`warning on since 2025-03-01 02:00 UTC: quarantined_ratio > 0.02 (was 0.31)`."""
    value = "" if alert.value is None else f" (was {alert.value:,.4g})"
    return f"{alert.severity} on since {alert.since[:16].replace('T', ' ')} UTC: {alert.when}{value}"


__all__ = ["KEYS", "execute", "table"]
