"""The figures of a run, derived in one place from the tables of schema `ops`. No JVM, no Spark job.

Whatever is told of a job (status, alerts, metrics, pages) counts what the ledger counts: nothing is measured a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from statistics import median
from typing import Any

from microbatch.config import LoadedJob, Suite
from microbatch.errors import MicrobatchError, redacted
from microbatch.job import Flow, tables_read
from microbatch.runner.inputs import input_of
from microbatch.sink import ops
from microbatch.sources import TableInput
from microbatch.sources.input import Input, Kept

COUNTS = ("rows_read", "rows_written", "rows_quarantined", "rows_superseded")
LEDGER = ("flow", "run_id", "query_id", "batch_id", "started_at", "duration_ms", "newest_at", *COUNTS, "rows_unparsed")
RUNS_COMPARED = 14  # two weeks of a daily job: a weekday is held against weekdays
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Lag:
    """What a flow's input held when the flow last looked at it, and no batch had taken in.

    Attributes:
        pending: in `unit`s: file, version, row…
        log_bytes: log that a server keeps for the flow; None where none does.
    """

    unit: str
    pending: int
    log_bytes: int | None = None


Lags = Mapping[tuple[str, str], Lag]
"""By job and flow."""


def log_bytes(input_: Input) -> int | None:
    """Log that the input's server keeps for it; None where none does.

    Raises:
        SourceUnavailable: it did not answer.
    """
    return input_.lag_bytes() if isinstance(input_, Kept) else None


def open_letters(warehouse: str, job: str) -> dict[str, dict[str, Any]]:
    """By flow: how many letters are open (`count`), and when the oldest was written (`oldest`). Payloads are not read."""
    found: dict[str, dict[str, Any]] = {}
    filters = [("job", "=", job), ("status", "=", "open")]
    for letter in ops.rows(warehouse, "quarantine", filters, only=("flow", "quarantined_at")):
        standing = found.setdefault(letter["flow"], {"count": 0, "oldest": letter["quarantined_at"]})
        standing["count"] += 1
        standing["oldest"] = min(standing["oldest"], letter["quarantined_at"])
    return found


def sums(batches: Sequence[Row], prefix: str = "") -> dict[str, int]:
    """The counts of some batches; what did not parse counts as quarantined."""
    found = {name: sum(batch[name] for batch in batches) for name in (*COUNTS, "rows_unparsed")}
    found["rows_quarantined"] += found.pop("rows_unparsed")
    return {f"{prefix}{name}": value for name, value in found.items()}


def hours(since: datetime | None, now: datetime) -> float | None:
    """Hours between two times, to about half a minute."""
    return None if since is None else round((now - since).total_seconds() / 3600, 2)


def newest(batches: Sequence[Row], flow: str) -> datetime | None:
    """The newest file or commit a flow has taken in; what was sent again by hand brings nothing new."""
    return max(
        (each["newest_at"] for each in batches if each["flow"] == flow and each["newest_at"] and streamed(each)),
        default=None,
    )


def streamed(batch: Row) -> bool:
    """Whether a batch came from the flow's own stream, not from a replay or a backfill."""
    return ":" not in batch["query_id"]


class Figures:
    """The metrics of one run of one job. Each is looked up when it is asked for, and only then.

    Counts are of this run, over all flows of the job, as the closing table of `run` adds them up; a run that found nothing
    to do counts 0. `quarantined_ratio` is that of the worst flow. None: there is nothing yet it could be known from.

    Args:
        flows: those that took part; None: all of the job.
        since: counts are of the batches that began since then; None: of all the run did.
        failed: whether the run failed; of one that goes on, whether a flow fails just now. None: not known yet.
        sla_met: whether it kept its SLA; None without one.
        duration_s: how long it has taken.
    """

    def __init__(
        self,
        suite: Suite,
        job: LoadedJob,
        run_id: str,
        now: datetime,
        *,
        flows: Sequence[str] | None = None,
        since: datetime | None = None,
        failed: bool | None = False,
        sla_met: bool | None = None,
        duration_s: float | None = None,
    ) -> None:
        self.suite, self.job, self.run_id, self.now = suite, job, run_id, now
        self.since = since
        self.failed, self.sla_met, self.duration_s = failed, sla_met, duration_s
        self.flows = [flow.name for flow in job.flows] if flows is None else list(flows)
        self._warehouse = suite.environment.storage["warehouse"]

    def of(self, metric: str) -> float | None:
        """The value of one of the metrics that conf may name."""
        return _METRICS[metric](self) if metric in _METRICS else float(sums(self._batches)[metric])

    @cached_property
    def _ledger(self) -> list[dict[str, Any]]:
        return ops.rows(self._warehouse, "batches", [("job", "=", self.job.name)], only=LEDGER)

    @property
    def _batches(self) -> list[dict[str, Any]]:
        mine = [batch for batch in self._ledger if batch["run_id"] == self.run_id]
        return [batch for batch in mine if self.since is None or batch["started_at"] >= self.since]

    @cached_property
    def _letters(self) -> dict[str, dict[str, Any]]:
        return open_letters(self._warehouse, self.job.name)

    def _quarantined_ratio(self) -> float | None:
        ratios = []
        for flow in self.job.flows:
            counted = sums([batch for batch in self._batches if batch["flow"] == flow.name])
            ratios += [counted["rows_quarantined"] / counted["rows_read"]] if counted["rows_read"] else []
        return max(ratios, default=None)

    def _freshness_h(self) -> float | None:
        ages = [hours(newest(self._ledger, flow.name), self.now) for flow in awaited(self.job)]
        return max((age for age in ages if age is not None), default=None)

    def _lag_rows(self) -> float | None:
        found = [behind(self.suite, self.job, flow).rows for flow in self.job.flows]
        known = [rows for rows in found if rows is not None]
        return float(sum(known)) if known else None

    def _volume_ratio(self) -> float | None:
        begun: dict[str, datetime] = {}
        read: dict[str, int] = {}
        for batch in self._ledger:
            if streamed(batch) and batch["flow"] in self.flows:
                run_id = batch["run_id"]
                begun[run_id] = min(begun.get(run_id, batch["started_at"]), batch["started_at"])
                read[run_id] = read.get(run_id, 0) + batch["rows_read"]
        earlier = sorted((run_id for run_id in begun if run_id != self.run_id), key=lambda each: begun[each])
        usual = median(read[run_id] for run_id in earlier[-RUNS_COMPARED:]) if earlier else 0
        # Held against runs of the same flows: a scheduler may start each flow by itself.
        return read.get(self.run_id, 0) / usual if usual else None

    def _open_quarantine(self) -> float:
        return float(sum(each["count"] for each in self._letters.values()))

    def _quarantine_age_h(self) -> float:
        oldest = min((each["oldest"] for each in self._letters.values()), default=None)
        return hours(oldest, self.now) or 0.0


_METRICS: dict[str, Callable[[Figures], float | None]] = {
    "quarantined_ratio": Figures._quarantined_ratio,
    "freshness_h": Figures._freshness_h,
    "lag_rows": Figures._lag_rows,
    "volume_ratio": Figures._volume_ratio,
    "open_quarantine": Figures._open_quarantine,
    "quarantine_age_h": Figures._quarantine_age_h,
    "duration_s": lambda figures: figures.duration_s,
    "failed": lambda figures: None if figures.failed is None else float(figures.failed),
    "sla_missed": lambda figures: None if figures.sla_met is None else float(not figures.sla_met),
}


def awaited(job: LoadedJob) -> list[Flow]:
    """The flows whose input must keep coming: those that end in what the job makes.

    A flow whose table is only looked up in, as a snapshot, changes at its own pace: `Snapshot(max_age_h=…)` watches that.
    """
    streamed_in = {flow.reads for flow in job.flows}
    looked_up = {table for flow in job.flows for table in tables_read(flow)} - streamed_in
    return [flow for flow in job.flows if flow.writes.table not in looked_up]


@dataclass(frozen=True)
class Behind:
    """What a flow has not taken in yet.

    Attributes:
        pending: files, versions or rows, as its input counts them; None where that is not known, and `error` says why.
        rows: None where the source counts no rows before it is read.
        log_bytes: see `Lag`.
    """

    pending: int | None = None
    rows: int | None = None
    log_bytes: int | None = None
    error: str | None = None


def behind(suite: Suite, job: LoadedJob, flow: Flow) -> Behind:
    """Ask a flow's input what waits there."""
    try:
        input_ = input_of(suite, job, flow)
        pending = input_.pending()
        if not pending or input_.unit == "row":
            return Behind(pending, pending, log_bytes(input_))
        return Behind(pending, input_.pending_rows() if isinstance(input_, TableInput) else None, log_bytes(input_))
    except (MicrobatchError, OSError, ValueError) as error:
        return Behind(error=redacted(str(error), suite.secrets))
