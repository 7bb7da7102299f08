"""`microbatch rewind`: tables, checkpoints, quarantine and ledger back to the end of an earlier run, together.

For a day that went wrong: what was written since is undone, and the next run takes it in again. Everything is checked before
anything is touched, and what was begun is finished by the same command.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone

from microbatch import session
from microbatch.commands.render import columns
from microbatch.config import Suite
from microbatch.errors import ConfigError, Problem
from microbatch.runner.lock import REWIND, held
from microbatch.runner.past import plan as plan_back
from microbatch.runner.rewinding import NOTHING, Plan, carry_out, unfinished


def execute(
    suite: Suite, jobs: Sequence[str], to: str | None, reached: Callable[[str], None] = lambda step: None
) -> int:
    """Set jobs back to the end of their last successful run before `to`, and print what went where.

    Args:
        to: a time as ISO 8601 writes it, in UTC unless it says otherwise; None only where a rewind was begun.
        reached: told of each step as it is done; what it raises is a crash there.

    Raises:
        ConfigError: no such job, no time, or another job reads a table and is not named.
        StateChanged: something is no longer there that is needed to go back; nothing was touched.
        JobHeld: a run holds one of the jobs.
    """
    loaded = [suite.job(name) for name in dict.fromkeys(jobs)]
    warehouse, checkpoints = suite.environment.storage["warehouse"], suite.environment.storage["checkpoints"]
    begun = unfinished(checkpoints, [job.name for job in loaded])
    with ExitStack() as locks:
        for name in sorted({job.name for job in loaded} | set(begun.jobs if begun else ())):
            locks.enter_context(held(checkpoints, name, finishing=REWIND))
        if begun:
            print(f"finishing the rewind to {begun.point} that was begun before", file=sys.stderr)
        plan = begun or plan_back(suite, loaded, _time(to))
        print(_told(plan))
        if not plan.tables and not plan.flows:
            print("nothing to do: nothing was written since")
            return 0
        carry_out(plan, warehouse, checkpoints, lambda: session.start("microbatch rewind", suite.spark_conf), reached)
    print("done; the next run takes in again what came since")
    return 0


def _time(text: str | None) -> datetime:
    try:
        at = datetime.fromisoformat((text or "").replace("Z", "+00:00"))  # Python 3.10 knows no Z
    except ValueError:
        what = f"{text} is not a time" if text else "is missing"
        raise ConfigError(Problem("--to", f"{what}; write one such as 2026-03-01T06:00, in UTC")) from None
    return at if at.tzinfo else at.replace(tzinfo=timezone.utc)


def _told(plan: Plan) -> str:
    lines = [
        *[
            ("table", each.table, "emptied" if each.version == NOTHING else f"version {each.version}")
            for each in plan.tables
        ],
        *[
            (
                "checkpoint",
                f"{each.job}.{each.flow}",
                "before its first batch" if each.batch_id == NOTHING else f"batch {each.batch_id}",
            )
            for each in plan.flows
        ],
    ]
    at = datetime.fromisoformat(plan.point)
    told = f"back to the end of a run at {at:%Y-%m-%d %H:%M:%S} UTC"
    return "\n".join([told, columns(("what", "name", "back to"), lines)] if lines else [told])
