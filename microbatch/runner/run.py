"""One run of one or several jobs, in one process and one session. Plain Python until a flow has something to do."""

from __future__ import annotations

import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Literal

from microbatch import session
from microbatch.config import LoadedJob, Suite
from microbatch.config.names import hint
from microbatch.errors import ConfigError, MicrobatchError, Problem, redacted
from microbatch.job import Flow, tables_read
from microbatch.observers import Observer
from microbatch.outcome import Outcome
from microbatch.retry import classify, with_back_off
from microbatch.runner.accept import Accept, start_anew
from microbatch.runner.flows import CHANGES, mask_of, properties_of, stream
from microbatch.runner.handshake import Standing, remember_input, shake
from microbatch.runner.inputs import checkpoint_of, input_of, reads_of
from microbatch.runner.lock import held
from microbatch.runner.stuck import Stuck
from microbatch.runner.watch import Watch
from microbatch.sink import ops
from microbatch.sources import TableInput

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from microbatch.shape import Shape
    from microbatch.work import Work

EXIT_CODES_FIRST = (2, 1, 3, 5, 4)  # of several failures, the one that most needs somebody decides
State = Literal["done", "idle", "failed", "waiting", "stopped"]


@dataclass(frozen=True)
class FlowRun:
    """What became of one flow in a run: `waiting` means that a flow it depends on failed."""

    job: str
    flow: str
    state: State
    outcomes: tuple[Outcome, ...] = ()
    error: BaseException | None = None


@dataclass(frozen=True)
class Report:
    """What became of a run, flow by flow, in the order they ran."""

    run_id: str
    flows: tuple[FlowRun, ...]

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for flow in self.flows for outcome in flow.outcomes]

    @property
    def errors(self) -> list[BaseException]:
        return [flow.error for flow in self.flows if flow.error is not None]

    @property
    def exit_code(self) -> int:
        """0, or of the failures' codes the first of 2, 1, 3, 5, 4."""
        codes = {error.exit_code if isinstance(error, MicrobatchError) else 1 for error in self.errors}
        return next((code for code in EXIT_CODES_FIRST if code in codes), 0)


@dataclass
class _Run:
    """The moving parts of a run."""

    suite: Suite
    jobs: tuple[str, ...]
    run_id: str
    observer: Observer
    reached: Callable[[str, int], None]
    stopping: threading.Event
    accept: Accept | None = None
    watch: Watch = field(init=False)
    spark: SparkSession | None = None
    shapes: dict[tuple[str, str], Shape] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.watch = Watch(self.suite, self.jobs, self.run_id, self.says)

    def says(self, line: str) -> None:
        """Tell a person something, no secret in it."""
        self.observer.says(redacted(line, self.suite.secrets))

    def ready(self) -> SparkSession:
        """The session, and the shape of every flow; Great Expectations is imported while the JVM starts."""
        if self.spark is None:
            from microbatch import checks

            warming = threading.Thread(target=checks.warm, daemon=True)
            warming.start()
            self.observer.says("starting Spark")
            spark = session.start(f"microbatch {' '.join(self.jobs)}", self.suite.spark_conf)
            warming.join()
            from microbatch.shape import shapes

            self.shapes = shapes(spark, self.suite, self.jobs)
            self.watch.spark_is_ready(spark, self.shapes)
            self.spark = spark
        return self.spark


def run(
    suite: Suite,
    jobs: Sequence[str],
    *,
    flows: Sequence[str] = (),
    accept: Accept | None = None,
    observer: Observer | None = None,
    reached: Callable[[str, int], None] = lambda step, batch_id: None,
) -> Report:
    """Take in all that is there for these jobs, then return.

    Args:
        jobs: names; their flows run in the order their tables require, across jobs.
        flows: only these flows; empty for all.
        accept: what somebody gives up on purpose, for the one flow that is named (see `accept`).
        reached: told of each step of a batch as it is done; what it raises stops the flow (the test kit's crashes).

    Returns:
        What became of each flow. A failed flow is in the report, it is not raised.

    Raises:
        ConfigError: an unknown job or flow.
        JobHeld: another run holds one of the jobs.
    """
    jobs = tuple(dict.fromkeys(jobs))
    wanted = [(job, flow) for job, flow in suite.ordered(jobs) if not flows or flow.name in flows]
    _refuse_unknown(suite, jobs, flows)
    if accept and len(wanted) != 1:
        raise ConfigError(Problem("--accept", "gives something up for good, so name one job and one --flow"))
    this = _Run(suite, jobs, run_id(), observer or Observer(), reached, threading.Event(), accept)
    started = datetime.now(timezone.utc)
    with ExitStack() as locks, _stops(this.stopping, this.observer):
        for name in sorted(set(jobs)):
            locks.enter_context(held(suite.environment.storage["checkpoints"], name))
        this.observer.begins([(job.name, flow.name) for job, flow in wanted])
        report = Report(this.run_id, tuple(_flows(this, wanted)))
        for name in jobs:
            _ends(this, suite.job(name), started, [each for each in report.flows if each.job == name])
        this.watch.ends()
    this.observer.ends(report.run_id)
    return report


def _flows(this: _Run, wanted: Sequence[tuple[LoadedJob, Flow]]) -> Iterator[FlowRun]:
    lost: set[str] = set()  # tables whose flow failed: what reads them waits
    for job, flow in wanted:
        if this.stopping.is_set():
            yield FlowRun(job.name, flow.name, "stopped")
        elif lost.intersection(tables_read(flow)):
            lost.add(flow.writes.table)
            yield FlowRun(job.name, flow.name, "waiting")
        else:
            outcomes: list[Outcome] = []
            try:
                state = _flow(this, job, flow, outcomes)
                this.watch.flow_ends(job, flow, outcomes)
                yield FlowRun(job.name, flow.name, state, tuple(outcomes))
            except (Exception, SystemExit, KeyboardInterrupt) as cause:
                # Whatever it is, it stops this flow and is told; flows that do not depend on it go on.
                lost.add(flow.writes.table)
                error = classify(cause, flow.name, outcomes[-1].batch_id + 1 if outcomes else None)
                this.watch.flow_ends(job, flow, outcomes, error)
                yield FlowRun(job.name, flow.name, "failed", tuple(outcomes), error)


def _flow(this: _Run, job: LoadedJob, flow: Flow, outcomes: list[Outcome]) -> State:
    """Run one flow; a transient error is tried again by starting the query again: every effect is keyed by the batch."""
    checkpoint, reads = checkpoint_of(this.suite, job, flow), reads_of(this.suite, job, flow)
    warehouse = this.suite.environment.storage["warehouse"]
    if this.accept == "checkpoint":
        start_anew(checkpoint, this.run_id)
    input_ = input_of(this.suite, job, flow, accept_files=this.accept == "files", told=this.says)
    standing = shake(warehouse, checkpoint, job, flow, reads)
    input_.fetch()
    pending = input_.pending()
    if not pending and not standing.unfinished:
        return "idle"
    spark = this.ready()
    from microbatch.batch import process
    from microbatch.work import Work

    work = Work(
        warehouse=warehouse,
        job=job.name,
        flow=flow,
        shape=this.shapes[job.name, flow.name],
        input=input_,
        checkpoint=checkpoint,
        query_id=standing.query_id or "",
        run_id=this.run_id,
        suite_version=this.suite.version,
        committed=standing.committed,
        planned=standing.planned,
        properties=properties_of(this.suite, flow),
        mask=mask_of(job),
        reached=this.reached,
        give_up=standing.planned if this.accept == "batch" and standing.unfinished else -1,
    )
    stuck = Stuck(warehouse, job.name, flow.name, this.run_id, checkpoint, this.suite.secrets)
    remember_input(checkpoint, reads)
    if isinstance(input_, TableInput) and (input_.changes or input_.recompute_by):
        input_.table.ensure(CHANGES)
    this.observer.flow_begins(job.name, flow.name, pending)
    this.watch.flow_begins(job, flow)

    def done(outcome: Outcome) -> None:
        if standing.unfinished and not outcomes:
            stuck.close(outcome.query_id, outcome.batch_id)
        outcomes.append(outcome)
        this.watch.batch_ends(job, flow, outcome)
        this.observer.batch_ends(outcome, input_.pending())

    def attempt() -> None:
        now = shake(warehouse, checkpoint, job, flow, reads)
        stream(spark, _standing_at(work, now), process, this.stopping, done)

    retry = job.conf.retry
    try:
        with_back_off(attempt, retry.attempts, retry.first_wait_s, retry.max_wait_s, this.says)
    except MicrobatchError as error:
        _bury(this, stuck, error)
        raise
    this.observer.flow_ends(job.name, flow.name)
    return "stopped" if this.stopping.is_set() and input_.pending() else "done" if outcomes else "idle"


def _bury(this: _Run, stuck: Stuck, error: MicrobatchError) -> None:
    """The letter of a stuck batch; where it cannot be written either, the error that led to it is what counts."""
    try:
        stuck.bury(error)
    except Exception as cause:
        this.observer.says(
            f"no letter could be written for the batch: {redacted(str(cause), this.suite.secrets)[:200]}"
        )


def _standing_at(work: Work, standing: Standing) -> Work:
    return replace(work, committed=standing.committed, planned=standing.planned)


def _ends(this: _Run, job: LoadedJob, started: datetime, flows: Sequence[FlowRun]) -> None:
    """A job has ended: keep how, and tell whoever waits for it."""
    report, finished = Report(this.run_id, tuple(flows)), datetime.now(timezone.utc)
    sla_m = job.conf.schedule.sla_m if job.conf.schedule else None
    sla_met = None if sla_m is None else not report.errors and finished - started <= timedelta(minutes=sla_m)
    if any(flow.outcomes or flow.error is not None for flow in flows) or this.accept:
        _record(this, job, report, started, finished, sla_met)
    this.watch.job_ends(job, [flow.flow for flow in flows], report.errors, started, finished, sla_met)


def _record(
    this: _Run, job: LoadedJob, report: Report, started: datetime, finished: datetime, sla_met: bool | None
) -> None:
    """One row in `ops.runs`; none for a run that found nothing to do."""
    record = {
        "job": job.name,
        "run_id": this.run_id,
        "started_at": started,
        "finished_at": finished,
        "status": "failed" if report.errors else "done",
        "exit_code": report.exit_code,
        "error": "; ".join(redacted(str(error), this.suite.secrets) for error in report.errors) or None,
        "sla_met": sla_met,
        "suite_version": this.suite.version,
        "accepted": this.accept,
    }
    if isinstance(next(iter(report.errors), None), ConfigError) and not report.outcomes:
        return  # nothing ran: what has to be edited is said on stderr, the warehouse is left alone
    ops.append(this.suite.environment.storage["warehouse"], "runs", [record])


def _refuse_unknown(suite: Suite, jobs: Sequence[str], flows: Sequence[str]) -> None:
    names = [flow.name for name in jobs for flow in suite.job(name).flows]
    unknown = [flow for flow in flows if flow not in names]
    if unknown:
        here = f"no flow of {', '.join(jobs)}"
        raise ConfigError(*[Problem("--flow", f"{flow} is {here}{hint(flow, names)}") for flow in unknown])


def run_id() -> str:
    """A new run's id: when it began, and what tells it from others."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"


@contextmanager
def _stops(stopping: threading.Event, observer: Observer) -> Iterator[None]:
    """SIGTERM and SIGINT end the run after the batch under way; a second one ends it at once, like a crash."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _: object) -> None:
        if stopping.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stopping.set()
        observer.says("stopping after the batch under way; once more stops at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
