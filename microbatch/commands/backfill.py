"""`microbatch backfill`: derive a flow's target again from its input table, beside its checkpoint, in one commit.

For a transform or a rule that was mended: what was derived wrongly before comes out right, and the stream goes on from where
it is. Killed anywhere, the same command finishes it: while the plan lies beside a job's lock, nothing else runs on the job.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from microbatch.commands.deriving import Deriving
from microbatch.commands.render import columns
from microbatch.config import LoadedJob, Suite
from microbatch.errors import ConfigError, Problem
from microbatch.job import Flow, Source
from microbatch.places import place, write
from microbatch.runner.lock import BACKFILL, held
from microbatch.runner.report import run_id

Chain = list[tuple[LoadedJob, Flow]]


@dataclass(frozen=True)
class Plan:
    """What was asked for, and the id under which it is done."""

    run_id: str
    job: str
    flow: str
    where: str | None
    downstream: bool


def execute(
    suite: Suite,
    job: LoadedJob,
    flow: str,
    where: str | None = None,
    downstream: bool = False,
    reached: Callable[[str], None] = lambda step: None,
) -> int:
    """Derive a flow's target again, then its readers' where `downstream` says so, and print what was written.

    A reader is derived from all that its input holds then, and its stream goes on behind it.

    Args:
        reached: told of each step as it is done ("plan", "letters F", "memory F", "target F", "ledger F", "checkpoint F"); what
            it raises is a crash there.

    Raises:
        ConfigError: the flow reads a source (what it read is not kept), or `where` is not SQL over the target's columns.
        StateChanged: a batch of one of the flows is unfinished, or its checkpoint does not fit its table; nothing was touched.
    """
    checkpoints = suite.environment.storage["checkpoints"]
    with ExitStack() as locks:
        locks.enter_context(held(checkpoints, job.name, finishing=BACKFILL))
        begun = _begun(checkpoints, job.name)
        plan = begun or Plan(run_id(), job.name, flow, where, downstream)
        chain, readers = _chain(suite, plan)
        jobs = sorted({each.name for each, _ in chain})
        for name in set(jobs) - {job.name}:
            locks.enter_context(held(checkpoints, name, finishing=BACKFILL))
        if begun:
            print(f"finishing the backfill of {plan.job}.{plan.flow} that was begun before", file=sys.stderr)
        steps = [Deriving(suite, *each, plan.run_id, n, begun is not None, reached) for n, each in enumerate(chain)]

        def begin() -> None:
            for name in jobs:
                write(place(checkpoints) / name / BACKFILL, json.dumps(asdict(plan)))
            reached("plan")

        lines = [step.run(plan.where, begin) for step in steps if not step.has_all_ahead]
        for name in jobs:
            (place(checkpoints) / name / BACKFILL).unlink(missing_ok=True)  # killed here, some are gone already
    print(columns(("flow", "table", "read", "derived", "quarantined", "inserted", "updated", "deleted"), lines))
    if readers and not plan.downstream:
        names = ", ".join(f"{owner.name}.{each.name}" for owner, each in readers)
        print(
            f"read by {names}: changes reach a reader of changes with its next run; --downstream derives them again too"
        )
    if begun and plan != Plan(plan.run_id, job.name, flow, where, downstream):
        print("finished what was begun before; for what was asked now, call again")
    return 0


def _begun(checkpoints: str, job: str) -> Plan | None:
    """The plan of a backfill that was begun for a job and is not done."""
    file = place(checkpoints) / job / BACKFILL
    return Plan(**json.loads(file.read_text())) if file.exists() else None


def _chain(suite: Suite, plan: Plan) -> tuple[Chain, Sequence[tuple[LoadedJob, Flow]]]:
    """The flows that are derived, in the order their tables require; and the readers of the first, derived or not."""
    job = suite.job(plan.job)
    flow = job.flow(plan.flow)
    if isinstance(flow.reads, Source):
        what = f"flow {flow.name} reads source {flow.reads.name}, and what was read is not kept"
        raise ConfigError(Problem(f"jobs/{job.name}.py", f"{what}; take it in anew with `run --accept checkpoint`"))
    readers = _readers(suite, flow)
    return [(job, flow), *(readers if plan.downstream else [])], readers


def _readers(suite: Suite, flow: Flow) -> Chain:
    """The flows that stream from the target, and those that stream from theirs, in the order their tables require."""
    found: Chain = []
    tables = {flow.writes.table}
    for owner, each in suite.ordered(tuple(suite.jobs)):
        if each.reads in tables:
            tables.add(each.writes.table)
            found.append((owner, each))
    return found
