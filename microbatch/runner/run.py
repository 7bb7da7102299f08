"""One run of one or several jobs, in one process and one session. Plain Python until a flow has something to do."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from microbatch.config import LoadedJob, Suite
from microbatch.config.names import hint
from microbatch.errors import ConfigError, MicrobatchError, Problem, WarehouseUnavailable, redacted
from microbatch.observers import Observer
from microbatch.retry import line
from microbatch.runner import metrics
from microbatch.runner.accept import Accept
from microbatch.runner.going_on import go_on
from microbatch.runner.little import is_little
from microbatch.runner.lock import held
from microbatch.runner.report import FlowRun, Report, run_id
from microbatch.runner.side_by_side import take_all
from microbatch.runner.take import Run
from microbatch.sink import ops


def run(
    suite: Suite,
    jobs: Sequence[str],
    *,
    flows: Sequence[str] = (),
    accept: Accept | None = None,
    observer: Observer | None = None,
    on: bool = False,
    reached: Callable[[str, int], None] = lambda step, batch_id: None,
) -> Report:
    """Take in all that is there for these jobs, then return; or go on.

    Args:
        jobs: names; their flows run in the order their tables require, across jobs.
        flows: only these flows; empty for all.
        on: go on until SIGTERM or SIGINT, which end it after the batches under way.
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
    this = Run(suite, jobs, run_id(), observer or Observer(), reached, threading.Event(), accept)
    this.is_little = lambda: not on and is_little(suite, wanted)
    started = datetime.now(timezone.utc)

    def lost() -> None:
        this.stopping.set()
        this.says("the lock was lost: stopping after the batch under way")

    with ExitStack() as locks, _stops(this.stopping, this.observer):
        for name in sorted(set(jobs)):
            locks.enter_context(held(suite.environment.storage["checkpoints"], name, lost=lost))
        this.observer.begins([(job.name, flow.name) for job, flow in wanted])
        if on:
            locks.enter_context(metrics.serving(suite, this.watch.lags, this.health))
        report = Report(this.run_id, go_on(this, wanted) if on else take_all(this, wanted))
        for name in jobs:
            unkept = _ends(this, suite.job(name), started, [each for each in report.flows if each.job == name])
            report = replace(report, unkept=(*report.unkept, *unkept))
        this.watch.ends()
    this.observer.ends(report.run_id)
    return report


def _ends(this: Run, job: LoadedJob, started: datetime, flows: Sequence[FlowRun]) -> tuple[MicrobatchError, ...]:
    """A job has ended: keep how, and tell whoever waits for it; why it could not be kept."""
    report, finished = Report(this.run_id, tuple(flows)), datetime.now(timezone.utc)
    sla_m = job.conf.schedule.sla_m if job.conf.schedule else None
    sla_met = None if sla_m is None else not report.errors and finished - started <= timedelta(minutes=sla_m)
    unkept: tuple[MicrobatchError, ...] = ()
    try:
        if any(flow.outcomes or flow.error is not None for flow in flows) or this.accept:
            _record(this, job, report, started, finished, sla_met)
    except Exception as cause:  # whatever a store raises: it must not hide why a flow failed, nor what the others did
        why = redacted(line(str(cause)), this.suite.secrets)
        unkept = (WarehouseUnavailable(f"ops.runs cannot be written, so how {job.name} ended is not kept there", why),)
        report = replace(report, unkept=unkept)
    this.watch.job_ends(job, [flow.flow for flow in flows], report.errors, started, finished, sla_met)
    return unkept


def _record(
    this: Run, job: LoadedJob, report: Report, started: datetime, finished: datetime, sla_met: bool | None
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
    if isinstance(next(iter(report.errors), None), ConfigError) and not report.outcomes and not this.accept:
        return  # nothing ran: what has to be edited is said on stderr, the warehouse is left alone
    ops.append(this.suite.environment.storage["warehouse"], "runs", [record])


def _refuse_unknown(suite: Suite, jobs: Sequence[str], flows: Sequence[str]) -> None:
    names = [flow.name for name in jobs for flow in suite.job(name).flows]
    unknown = [flow for flow in flows if flow not in names]
    if unknown:
        here = f"no flow of {', '.join(jobs)}"
        raise ConfigError(*[Problem("--flow", f"{flow} is {here}{hint(flow, names)}") for flow in unknown])


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
