"""The metrics of every job of a suite, out of the ledger: what a file or an endpoint for Prometheus shows.

Counters add up the whole ledger, so they stay right across processes; where `maintain` shortens the ledger they begin anew,
as after a restart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, Any

from microbatch.config import Suite
from microbatch.observers import prometheus
from microbatch.runner.alerts import active
from microbatch.runner.figures import LEDGER, Lags, newest, open_letters, sums
from microbatch.sink import ops

if TYPE_CHECKING:
    from prometheus_client.core import Metric

FLOW, JOB = ("job", "flow"), ("job",)
COUNTERS = {
    "rows_read": "Rows read",
    "rows_written": "Rows inserted, updated or deleted in the target",
    "rows_quarantined": "Rows sent to quarantine, what did not parse included",
    "rows_superseded": "Rows dropped because a newer version of their key was there",
}


class Metrics:
    """Reads the tables of schema `ops` each time it is asked: a collector as prometheus-client wants it.

    Args:
        lags: what the flows found when they last looked; no source is asked for a scrape, which must not wait for one.
    """

    def __init__(self, suite: Suite, lags: Lags) -> None:
        self.suite, self.lags, self._warehouse = suite, lags, suite.environment.storage["warehouse"]

    def collect(self) -> Iterator[Metric]:
        """Every metric of every job, jobs without a run included."""
        from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

        info = InfoMetricFamily("microbatch_suite", "Which version of which suite runs where", labels=())
        info.add_metric((), {"env": self.suite.env, "suite_version": self.suite.version})
        yield info
        ledger = ops.rows(self._warehouse, "batches", only=("job", *LEDGER))
        yield from self._of_flows(ledger)
        yield from self._of_sources()
        yield from self._of_runs()
        alerts = GaugeMetricFamily(
            "microbatch_alert_on", "1 while the alert is on, else 0", labels=(*JOB, "alert", "severity")
        )
        for job in self.suite.jobs.values():
            on = {(alert.when, alert.severity) for alert in active(self._warehouse, job)} if job.conf.alerts else set()
            for alert in job.conf.alerts:
                alerts.add_metric((job.name, alert.when, alert.severity), float(alert.key in on))
        yield alerts

    def _of_flows(self, ledger: list[dict[str, Any]]) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

        counters = {
            name: CounterMetricFamily(f"microbatch_{name}", f"{text}.", labels=FLOW) for name, text in COUNTERS.items()
        }
        took = SummaryMetricFamily("microbatch_batch_duration_seconds", "Time the batches took.", labels=FLOW)
        age = GaugeMetricFamily(
            "microbatch_newest_input_timestamp_seconds",
            "When the newest file or commit taken in was written.",
            labels=FLOW,
        )
        letters = GaugeMetricFamily(
            "microbatch_quarantine_open_letters", "Letters nobody has replayed or discarded.", labels=FLOW
        )
        oldest = GaugeMetricFamily(
            "microbatch_quarantine_oldest_open_letter_timestamp_seconds",
            "When the oldest of them was written.",
            labels=FLOW,
        )
        for job in self.suite.jobs.values():
            for flow in job.flows:
                mine = [batch for batch in ledger if (batch["job"], batch["flow"]) == (job.name, flow.name)]
                labels = (job.name, flow.name)
                for name, count in sums(mine).items():
                    counters[name].add_metric(labels, count)
                took.add_metric(labels, len(mine), sum(batch["duration_ms"] for batch in mine) / 1000)
                _time(age, labels, newest(mine, flow.name))
        for job in self.suite.jobs.values():
            found = open_letters(self._warehouse, job.name)
            for each in job.flows:
                letters.add_metric((job.name, each.name), found.get(each.name, {"count": 0})["count"])
                _time(oldest, (job.name, each.name), found.get(each.name, {"oldest": None})["oldest"])
        yield from (*counters.values(), took, age, letters, oldest)

    def _of_sources(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        text = "What the flow had not taken in when it last looked: files, versions, rows."
        pending = GaugeMetricFamily("microbatch_source_pending", text, labels=(*FLOW, "unit"))
        text = "Log that a PostgreSQL server keeps for the flow's replication slot."
        kept = GaugeMetricFamily("microbatch_source_log_bytes", text, labels=FLOW)
        for flow, lag in dict(self.lags).items():
            pending.add_metric((*flow, lag.unit), lag.pending)
            if lag.log_bytes is not None:
                kept.add_metric(flow, lag.log_bytes)
        yield from (pending, kept)

    def _of_runs(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        runs = CounterMetricFamily(
            "microbatch_runs", "Runs that had something to do, by how they ended.", labels=(*JOB, "status")
        )
        ended = GaugeMetricFamily("microbatch_last_run_timestamp_seconds", "When the last of them ended.", labels=JOB)
        took = GaugeMetricFamily("microbatch_last_run_duration_seconds", "How long it took.", labels=JOB)
        good = GaugeMetricFamily("microbatch_last_run_success", "1 where it failed nowhere, else 0.", labels=JOB)
        kept = GaugeMetricFamily("microbatch_last_run_sla_met", "1 where it kept its SLA, else 0.", labels=JOB)
        wanted = ("job", "started_at", "finished_at", "status", "sla_met")
        rows = ops.rows(self._warehouse, "runs", only=wanted)
        for name in self.suite.jobs:
            ran = [row for row in rows if row["job"] == name and row["status"] != "rewound"]  # a rewind is no run
            mine = sorted(ran, key=lambda row: row["finished_at"])
            for status in ("done", "failed"):
                runs.add_metric((name, status), sum(row["status"] == status for row in mine))
            if mine:
                last = mine[-1]
                _time(ended, (name,), last["finished_at"])
                took.add_metric((name,), (last["finished_at"] - last["started_at"]).total_seconds())
                good.add_metric((name,), float(last["status"] == "done"))
                if last["sla_met"] is not None:
                    kept.add_metric((name,), float(last["sla_met"]))
        yield from (runs, ended, took, good, kept)


def write(suite: Suite, lags: Lags) -> None:
    """Write the file that conf names under `metrics`; nothing where it names none.

    Raises:
        OSError: it cannot be written.
    """
    conf = suite.environment.metrics
    if conf and conf.file:
        prometheus.write(conf.file, Metrics(suite, lags))


def serving(suite: Suite, lags: Lags, health: prometheus.Health) -> AbstractContextManager[None]:
    """Serve metrics and health on the port that conf names until the end of the block; nothing where it names none.

    Raises:
        WarehouseUnavailable: the port is taken.
    """
    conf = suite.environment.metrics
    if conf is None or conf.port is None:
        return nullcontext()
    return prometheus.serving(conf.host, conf.port, Metrics(suite, lags), health)


def _time(gauge: Any, labels: tuple[str, ...], when: datetime | None) -> None:
    if when is not None:
        gauge.add_metric(labels, when.timestamp())
