"""Alerts: told once when a condition of conf begins to hold, and once when it no longer does.

Which alerts are on is kept in `ops.alerts`, a row a change: a run in which nothing begins or ends leaves no commit. What a
channel did not take is said in `status`, and sent to it again: by the next run, and every few minutes by one that goes on.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from microbatch.config import LoadedJob, Suite
from microbatch.config.models import Alert
from microbatch.errors import redacted
from microbatch.observers import channels
from microbatch.outcome import Outcome
from microbatch.runner.figures import Figures
from microbatch.sink import ops

ON, OVER = "on", "over"
AGAIN_S = 300.0  # how long a run leaves a channel alone that did not take a message
KINDS = {"info": "info", "warning": "warning", "critical": "failure"}
GROWING = (
    "rows_read",
    "rows_written",
    "rows_quarantined",
    "rows_superseded",
)  # within a run: once above, above at its end

Key = tuple[str, str]
"""An alert's condition and its severity."""


@dataclass(frozen=True)
class Active:
    """An alert that is on.

    Attributes:
        when: its condition.
        value: of the metric when it began.
        undelivered: the channels that did not take the message, each with the reason; None: all took it.
    """

    when: str
    severity: str
    since: str
    value: float | None
    undelivered: str | None


def active(warehouse: str, job: LoadedJob) -> tuple[Active, ...]:
    """The alerts of a job that are on; one that conf no longer has is not."""
    last = _last(warehouse, job.name)
    return tuple(
        Active(alert.when, alert.severity, row["since"].isoformat(timespec="seconds"), row["value"], row["undelivered"])
        for alert in job.conf.alerts
        if (row := last.get(alert.key)) and row["status"] == ON
    )


def undelivered(warehouse: str, job: LoadedJob) -> tuple[str, ...]:
    """What no channel could be told so far, of alerts that are on or over: a line each."""
    last = _last(warehouse, job.name)
    return tuple(
        f"{alert.severity} {alert.when} ({row['status']}): {row['undelivered']}"
        for alert in job.conf.alerts
        if (row := last.get(alert.key)) and row["undelivered"]
    )


class Alerts:
    """The alerts of one job in one run.

    Args:
        says: told of a channel that does not take a message; nothing here fails a run.
    """

    def __init__(self, suite: Suite, job: LoadedJob, run_id: str, says: Callable[[str], None]) -> None:
        self.suite, self.job, self.run_id, self.says = suite, job, run_id, says
        self._warehouse = suite.environment.storage["warehouse"]
        self._known: dict[Key, dict[str, Any]] | None = None
        self._tried: dict[Key, float] = {}  # when this run last tried to send it, of the monotonic clock

    def batch(self, outcomes: Sequence[Outcome]) -> None:
        """After a batch: begin what the run so far already shows. Reads no table unless a condition holds.

        Args:
            outcomes: of the job's batches in this run, the one that ended last.
        """
        for alert in self.job.conf.alerts:
            metric, op, _ = alert.condition
            value = _so_far(metric, op, outcomes)
            if value is not None and alert.condition.holds(value):
                self._change(alert, ON, value, None)

    def judge(self, figures: Figures, errors: Iterable[str] = ()) -> None:
        """At the end of a run, or at a quiet moment of one that goes on: begin and end what has to be.

        Args:
            errors: what went wrong, for the text of an alert on `failed`.
        """
        told = "; ".join(errors) or None
        for alert in self.job.conf.alerts:
            value = figures.of(alert.condition.metric)
            if value is not None:
                holds = alert.condition.holds(value)
                self._change(alert, ON if holds else OVER, value, told if alert.condition.metric == "failed" else None)
            self._again(alert)

    def _state(self) -> dict[Key, dict[str, Any]]:
        if self._known is None:
            self._known = _last(self._warehouse, self.job.name)
        return self._known

    def _change(self, alert: Alert, status: str, value: float, told: str | None) -> None:
        before = self._state().get(alert.key)
        if (before["status"] if before else OVER) == status:
            return
        now = datetime.now(timezone.utc)
        since = before["since"] if before and status == OVER else now
        self._keep(alert, status, value, since, self._tell(alert, alert.notify, status, value, since, told))

    def _again(self, alert: Alert) -> None:
        """Send what a channel did not take before, to that channel: a run tries at once, then leaves it alone for a while."""
        before = self._state().get(alert.key)
        if not (before and before["undelivered"] and self._may_try(alert)):
            return
        missed = _missed(alert, before["undelivered"])
        failures = self._tell(alert, missed, before["status"], before["value"], before["since"], None)
        if not failures or failures.keys() != set(missed):
            self._keep(alert, before["status"], before["value"], before["since"], failures)

    def _may_try(self, alert: Alert) -> bool:
        tried = self._tried.get(alert.key)
        return tried is None or time.monotonic() - tried >= AGAIN_S

    def _tell(
        self,
        alert: Alert,
        notify: Iterable[str],
        status: str,
        value: float | None,
        since: datetime,
        told: str | None,
    ) -> dict[str, str]:
        """Send to each of these channels; by channel, why it did not take it."""
        self._tried[alert.key] = time.monotonic()
        title, text = self._message(alert, status, value, since, told)
        failures = {}
        for name in dict.fromkeys(notify):
            url = self.suite.environment.channels[name].url
            kind = KINDS[alert.severity] if status == ON else "success"
            if url and (failure := channels.send(url, title, text, kind, self.suite.secrets)):
                failures[name] = failure
                self.says(f"channel {name} did not take the alert {alert.when}: {failure}")
        return failures

    def _message(
        self, alert: Alert, status: str, value: float | None, since: datetime, told: str | None
    ) -> tuple[str, str]:
        condition = f"{self.job.name}: {alert.when}"
        title = f"{alert.severity}: {condition}" if status == ON else f"over: {condition}"
        shown = "unknown" if value is None else f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
        lines = [
            f"{alert.condition.metric} is {shown}",
            *([told] if told else []),
            f"{'since' if status == ON else 'was on since'} {since:%Y-%m-%d %H:%M} UTC",
            f"run {self.run_id}, environment {self.suite.env}, on {socket.gethostname()}",
            f"more: microbatch status {self.job.name}",
        ]
        return title, "\n".join(lines)

    def _keep(self, alert: Alert, status: str, value: float | None, since: datetime, failures: dict[str, str]) -> None:
        not_taken = "; ".join(f"{name}: {why}" for name, why in failures.items())
        row = {
            "job": self.job.name,
            "alert": alert.when,
            "severity": alert.severity,
            "status": status,
            "value": value,
            "since": since,
            "changed_at": datetime.now(timezone.utc),
            "run_id": self.run_id,
            "undelivered": redacted(not_taken, self.suite.secrets) or None,
        }
        self._state()[alert.key] = row
        ops.append(self._warehouse, "alerts", [row])


def _last(warehouse: str, job: str) -> dict[Key, dict[str, Any]]:
    """The last change of each alert."""
    changes = ops.rows(warehouse, "alerts", [("job", "=", job)])
    return {
        (change["alert"], change["severity"]): change for change in sorted(changes, key=lambda each: each["changed_at"])
    }


def _missed(alert: Alert, undelivered: str) -> list[str]:
    """The channels that did not take a message; all that the alert has where conf names others by now."""
    missed = [name for name in alert.notify if re.search(rf"(^|; ){re.escape(name)}: ", undelivered)]
    return missed or list(alert.notify)


def _so_far(metric: str, op: str, outcomes: Sequence[Outcome]) -> float | None:
    """A metric that a run under way shows for certain; None for one that only its end can tell."""
    if metric == "quarantined_ratio":
        mine = [outcome for outcome in outcomes if outcome.flow == outcomes[-1].flow]
        read = sum(outcome.rows_read for outcome in mine)
        return sum(o.rows_quarantined + o.rows_unparsed for o in mine) / read if read else None
    if metric in GROWING and op in (">", ">="):
        unparsed = sum(outcome.rows_unparsed for outcome in outcomes) if metric == "rows_quarantined" else 0
        return float(sum(getattr(outcome, metric) for outcome in outcomes) + unparsed)
    return None
