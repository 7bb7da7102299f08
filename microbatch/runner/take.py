"""One flow of a run: what is pending, the batches that take it in, and what a failure leaves behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from microbatch.config import LoadedJob, Suite
from microbatch.errors import MicrobatchError, redacted
from microbatch.job import Flow
from microbatch.observers import Observer
from microbatch.outcome import Outcome
from microbatch.retry import with_back_off
from microbatch.runner import starting
from microbatch.runner.accept import Accept, start_anew
from microbatch.runner.flows import CHANGES, stream, work_of
from microbatch.runner.handshake import Standing, remember_input, shake
from microbatch.runner.health import Health
from microbatch.runner.inputs import checkpoint_of, input_of, reads_of
from microbatch.runner.report import State
from microbatch.runner.stuck import Stuck
from microbatch.runner.watch import Watch
from microbatch.sink import catalog, ops
from microbatch.sink.tables import Table
from microbatch.sources import TableInput
from microbatch.sources.input import Input

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from microbatch.shape import Shape
    from microbatch.work import Work


@dataclass
class Run:
    """The moving parts of a run."""

    suite: Suite
    jobs: tuple[str, ...]
    run_id: str
    observer: Observer
    reached: Callable[[str, int], None]
    stopping: threading.Event
    accept: Accept | None = None
    is_little: Callable[[], bool] = lambda: False  # asked once, before Spark starts
    watch: Watch = field(init=False)
    health: Health = field(init=False)
    spark: SparkSession | None = None
    shapes: dict[tuple[str, str], Shape] = field(default_factory=dict)
    starting: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.health = Health(self.run_id)
        self.watch = Watch(self.suite, self.jobs, self.run_id, self.says)

    def says(self, line: str) -> None:
        """Tell a person something, no secret in it."""
        self.observer.says(redacted(line, self.suite.secrets))

    def ready(self) -> SparkSession:
        """The session, and the shape of every flow."""
        with self.starting:
            if self.spark is None:
                self.spark = self._start()
            return self.spark

    def _start(self) -> SparkSession:
        self.observer.says("starting Spark")
        little = self.is_little()
        spark, self.shapes = starting.start(self.suite, self.jobs, self.suite.spark_conf, little=little, to_run=True)
        self.watch.spark_is_ready(spark, self.shapes)
        return spark


def take(this: Run, job: LoadedJob, flow: Flow, outcomes: list[Outcome]) -> State:
    """Run one flow; a transient error is tried again by starting the query again: every effect is keyed by the batch."""
    checkpoint, reads = checkpoint_of(this.suite, job, flow), reads_of(this.suite, job, flow)
    warehouse = this.suite.environment.storage["warehouse"]
    if this.accept == "checkpoint":
        # First of all: killed before the checkpoint is aside, a flow whose table is gone goes on by no other command.
        if not Table(warehouse, flow.writes.table).exists():
            for name in ops.MEMORY:
                ops.forget(warehouse, name, flow.writes.table)
        start_anew(checkpoint, this.run_id)
    input_ = input_of(this.suite, job, flow, accept_files=this.accept == "files", told=this.says)
    standing = shake(warehouse, checkpoint, job, flow, reads)
    input_.fetch()
    pending = input_.pending()
    this.watch.looked(job, flow, input_, pending)
    if not pending and not standing.unfinished:
        return "idle"
    spark = this.ready()
    from microbatch.batch import process

    work = replace(
        work_of(this.suite, job, flow, this.shapes[job.name, flow.name], input_, this.run_id, standing.query_id or ""),
        reached=this.reached,
        give_up=standing.planned if this.accept == "batch" and standing.unfinished else -1,
    )
    stuck = Stuck(warehouse, job.name, flow.name, this.run_id, checkpoint, this.suite.secrets)
    remember_input(checkpoint, reads)
    if isinstance(input_, TableInput) and (input_.changes or input_.recompute_by):
        input_.table.ensure(CHANGES)
    look = _Look(input_, pending)
    this.observer.flow_begins(job.name, flow.name, pending)
    this.watch.flow_begins(job, flow)

    def done(outcome: Outcome) -> None:
        if standing.unfinished and not outcomes:
            stuck.close(outcome.query_id, outcome.batch_id)
        outcomes.append(outcome)
        this.watch.batch_ends(job, flow, outcome)
        if look.again():
            this.watch.looked(job, flow, input_, look.pending)
        this.observer.batch_ends(outcome, look.pending)

    def attempt() -> None:
        now = shake(warehouse, checkpoint, job, flow, reads)
        stream(spark, _standing_at(work, now), process, this.stopping, done)

    retry = job.conf.retry
    try:
        with_back_off(attempt, retry.attempts, retry.first_wait_s, retry.max_wait_s, this.says)
    except MicrobatchError as error:
        _bury(this, stuck, error)
        raise
    if this.suite.environment.catalog:
        catalog.register(spark, flow.name, work.target)
    this.observer.flow_ends(job.name, flow.name)
    return "stopped" if this.stopping.is_set() and input_.pending() else "done" if outcomes else "idle"


class _Look:
    """What is pending, as it was when it was last looked at.

    A look at thousands of files costs a third of a second, and batch for batch that adds up: it takes at most a twentieth of
    the time.
    """

    SHARE = 20

    def __init__(self, input_: Input, pending: int) -> None:
        self.pending, self._input, self._not_before = pending, input_, 0.0

    def again(self) -> bool:
        """Look, unless the last look is too short ago; whether it was done."""
        began = time.monotonic()
        if began < self._not_before:
            return False
        self.pending = self._input.pending()
        ended = time.monotonic()
        self._not_before = ended + self.SHARE * (ended - began)
        return True


def _bury(this: Run, stuck: Stuck, error: MicrobatchError) -> None:
    """The letter of a stuck batch; where it cannot be written either, the error that led to it is what counts."""
    try:
        stuck.bury(error)
    except Exception as cause:
        this.observer.says(
            f"no letter could be written for the batch: {redacted(str(cause), this.suite.secrets)[:200]}"
        )


def _standing_at(work: Work, standing: Standing) -> Work:
    return replace(work, committed=standing.committed, planned=standing.planned)
