"""What the world outside is told of a run: alerts, metrics, lineage. A fault in the telling is said, and fails no run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from microbatch.config import LoadedJob, Suite
from microbatch.errors import redacted, shortened
from microbatch.job import Flow
from microbatch.observers.openlineage import Emitter
from microbatch.outcome import Outcome
from microbatch.runner import columns, metrics
from microbatch.runner.alerts import Alerts
from microbatch.runner.events import Events
from microbatch.runner.figures import Figures, Lag, log_bytes

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from microbatch.shape import Shape
    from microbatch.sources.input import Input

P = ParamSpec("P")
MOST_SAID = 300  # characters of a fault in the telling
WINDOW = timedelta(days=1)  # what the counts of a run that goes on are of


def _one_at_a_time(method: Callable[Concatenate[Watch, P], None]) -> Callable[Concatenate[Watch, P], None]:
    @wraps(method)
    def held(self: Watch, /, *args: P.args, **words: P.kwargs) -> None:
        with self._telling:
            method(self, *args, **words)

    return held


class Watch:
    """Watches one run of some jobs.

    Args:
        says: tells a person at the terminal, or the log.
    """

    def __init__(self, suite: Suite, jobs: Sequence[str], run_id: str, says: Callable[[str], None]) -> None:
        self.suite, self.run_id, self.says = suite, run_id, says
        self.lags: dict[tuple[str, str], Lag] = {}
        self._outcomes: dict[str, list[Outcome]] = {name: [] for name in jobs}
        self._alerts = {name: Alerts(suite, suite.job(name), run_id, says) for name in jobs}
        self._spark: SparkSession | None = None
        self._shapes: Mapping[tuple[str, str], Shape] = {}
        self._columns: dict[str, list[dict[str, Any]]] = {}
        self._begun: set[tuple[str, str]] = set()
        self._events: Events | None = None
        self._silent = suite.environment.lineage is None
        self._telling = threading.RLock()  # flows of a run that goes on tell side by side

    def spark_is_ready(self, spark: SparkSession, shapes: Mapping[tuple[str, str], Shape]) -> None:
        """The session is there, and the shape of every flow."""
        self._spark, self._shapes = spark, shapes

    def looked(self, job: LoadedJob, flow: Flow, input_: Input, pending: int) -> None:
        """A flow has looked at what it reads."""
        if self.suite.environment.metrics is not None:
            with self._quietly("metrics"):
                self.lags[job.name, flow.name] = Lag(input_.unit, pending, log_bytes(input_))

    @_one_at_a_time
    def flow_begins(self, job: LoadedJob, flow: Flow) -> None:
        """A flow has something to do."""
        if (job.name, flow.name) in self._begun:
            return
        if not any(name == job.name for name, _ in self._begun):
            self._emit(lambda events: events.job(job, "START"))
        self._begun.add((job.name, flow.name))
        self._tell(job, flow, "START")

    @_one_at_a_time
    def batch_ends(self, job: LoadedJob, flow: Flow, outcome: Outcome) -> None:
        """A batch is in its table and in the ledger."""
        outcomes = self._outcomes[job.name]
        outcomes.append(replace(outcome, results=(), source_start="", source_end=""))
        recent = (datetime.now(timezone.utc) - WINDOW).isoformat()
        while len(outcomes) > 1 and outcomes[0].started_at < recent:  # a run that goes on for months must not keep all
            outcomes.pop(0)
        with self._quietly("alerts"):
            self._alerts[job.name].batch(outcomes)
        self._tell(job, flow, "RUNNING", [outcome])

    @_one_at_a_time
    def flow_ends(
        self, job: LoadedJob, flow: Flow, outcomes: Sequence[Outcome], error: BaseException | None = None
    ) -> None:
        """A flow has done what there was to do, or failed."""
        if error is not None:
            self.flow_begins(job, flow)  # it may have failed before it had
        if (job.name, flow.name) in self._begun:
            self._tell(job, flow, "FAIL" if error else "COMPLETE", outcomes, error)

    @_one_at_a_time
    def job_ends(
        self,
        job: LoadedJob,
        flows: Sequence[str],
        errors: Sequence[BaseException],
        started: datetime,
        finished: datetime,
        sla_met: bool | None,
    ) -> None:
        """The flows of a job have ended, and `ops.runs` says how."""
        self._lineage(job)
        if any(name == job.name for name, _ in self._begun):
            self._emit(lambda events: events.job(job, "FAIL" if errors else "COMPLETE", errors))
        if job.conf.alerts:
            figures = Figures(
                self.suite,
                job,
                self.run_id,
                finished,
                flows=flows,
                failed=bool(errors),
                sla_met=sla_met,
                duration_s=(finished - started).total_seconds(),
            )
            with self._quietly("alerts"):
                self._alerts[job.name].judge(figures, [str(error) for error in errors])

    @_one_at_a_time
    def pauses(
        self, job: LoadedJob, flows: Sequence[str], lasted_s: float, errors: Sequence[BaseException] | None
    ) -> None:
        """A run that goes on tells how it is: judge its alerts over the last day, and write the metrics.

        Args:
            errors: of the flows that fail just now, whether they are tried again or not; None: not known yet.
        """
        now = datetime.now(timezone.utc)
        if job.conf.alerts:
            figures = Figures(
                self.suite,
                job,
                self.run_id,
                now,
                flows=flows,
                since=now - WINDOW,
                failed=None if errors is None else bool(errors),
                duration_s=lasted_s,
            )
            with self._quietly("alerts"):
                self._alerts[job.name].judge(figures, [str(error) for error in errors or ()])
        self.ends()

    def ends(self) -> None:
        """The run is over, for all of its jobs; or it says how far it is."""
        with self._quietly("metrics"):
            metrics.write(self.suite, self.lags)

    def _tell(
        self,
        job: LoadedJob,
        flow: Flow,
        state: str,
        outcomes: Sequence[Outcome] = (),
        error: BaseException | None = None,
    ) -> None:
        shape = self._shapes.get((job.name, flow.name))
        self._emit(lambda events: events.flow(job, flow, state, shape, self._lineage(job), outcomes, error))

    def _emit(self, send: Callable[[Events], None]) -> None:
        """Send an event; after one that could not be sent no other is tried in this run."""
        conf = self.suite.environment.lineage
        if self._silent or conf is None:
            return
        self._silent = True
        with self._quietly("lineage"):
            self._events = self._events or Events(self.suite, self.run_id, Emitter(conf.url, conf.file))
            send(self._events)
            self._silent = False

    def _lineage(self, job: LoadedJob) -> list[dict[str, Any]]:
        """The lineage of a job's columns; none before Spark is there, unless an earlier run kept it."""
        if job.name not in self._columns:
            if self._spark is None or not all((job.name, flow.name) in self._shapes for flow in job.flows):
                return []
            self._columns[job.name] = []
            with self._quietly("lineage"):
                self._columns[job.name] = columns.keep(self._spark, self.suite, job, self._shapes)
        return self._columns[job.name]

    @contextmanager
    def _quietly(self, what: str) -> Iterator[None]:
        try:
            yield
        except (Exception, SystemExit, KeyboardInterrupt) as cause:
            # Whatever a warehouse, a server or a library raises, or a transform that is traced: the rows are where they belong.
            told = " ".join(redacted(str(cause), self.suite.secrets).split())
            self.says(f"{what}: not told: {type(cause).__name__}: {shortened(told, MOST_SAID)}")
