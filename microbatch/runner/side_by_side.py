"""The flows of a run that ends: each as soon as the tables it reads are ready, side by side where nothing joins them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from microbatch import session
from microbatch.config import LoadedJob
from microbatch.job import Flow, tables_read
from microbatch.outcome import Outcome
from microbatch.retry import classify
from microbatch.runner.report import FlowRun
from microbatch.runner.take import Run, take

POLL_S = 0.5  # a signal is only handled between two waits


def take_all(this: Run, wanted: Sequence[tuple[LoadedJob, Flow]]) -> tuple[FlowRun, ...]:
    """Take in what is there for each flow; as many at a time as this process has cores.

    A flow waits for those before it that write a table it reads. Of a small batch most is spent by the driver, on one core:
    that is what flows side by side share. Each query has a checkpoint, a target and commits of its own, as in a run that
    goes on.

    Args:
        wanted: in the order their tables require.

    Returns:
        What became of each flow, in the order of `wanted`.
    """
    left, under_way = list(range(len(wanted))), dict[Future[FlowRun], int]()
    ended: dict[int, FlowRun] = {}
    lost: set[str] = set()  # tables whose flow failed: what reads them waits
    with ThreadPoolExecutor(session.cores(), thread_name_prefix="flow") as pool:
        while left or under_way:
            not_ready = {wanted[number][1].writes.table for number in under_way.values()}
            for number in list(left):
                job, flow = wanted[number]
                if not_ready.isdisjoint(tables_read(flow)):
                    if this.stopping.is_set():
                        ended[number] = FlowRun(job.name, flow.name, "stopped")
                    elif not lost.isdisjoint(tables_read(flow)):
                        ended[number] = FlowRun(job.name, flow.name, "waiting")
                        lost.add(flow.writes.table)
                    elif len(under_way) < session.cores():
                        under_way[pool.submit(_take_in, this, job, flow)] = number
                if number in ended or number in under_way.values():
                    left.remove(number)
                if number not in ended:
                    not_ready.add(flow.writes.table)
            for future in wait(under_way, POLL_S, FIRST_COMPLETED).done:
                number = under_way.pop(future)
                if future.exception() is not None:  # what is no error of a flow ends the run, as a crash would
                    this.stopping.set()
                ended[number] = future.result()
                if ended[number].error is not None:
                    lost.add(wanted[number][1].writes.table)
    return tuple(ended[number] for number in range(len(wanted)))


def _take_in(this: Run, job: LoadedJob, flow: Flow) -> FlowRun:
    outcomes: list[Outcome] = []
    try:
        state = take(this, job, flow, outcomes)
        this.watch.flow_ends(job, flow, outcomes)
        return FlowRun(job.name, flow.name, state, tuple(outcomes))
    except (Exception, SystemExit, KeyboardInterrupt) as cause:
        # Whatever it is, it stops this flow and is told; flows that do not depend on it go on.
        error = classify(cause, flow.name, outcomes[-1].batch_id + 1 if outcomes else None)
        this.watch.flow_ends(job, flow, outcomes, error)
        return FlowRun(job.name, flow.name, "failed", tuple(outcomes), error)
