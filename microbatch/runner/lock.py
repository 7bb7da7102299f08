"""One run at a time: a lock per job.

On a disk it is freed by the operating system however the run ends; on an object store it is a lease (see `lease`).
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from microbatch.errors import JobHeld, StateChanged, WarehouseUnavailable
from microbatch.places import Place, place
from microbatch.stored import Stored

# Beside the lock, until it is done: the plan of what was begun and is in some tables already, and in others not yet.
REWIND, BACKFILL = "rewind.json", "backfill.json"


@contextmanager
def held(checkpoints: str, job: str, finishing: str = "", lost: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold `<checkpoints>/<job>/.lock` for as long as the block runs. Never waits.

    Args:
        finishing: the plan that the block carries out (`REWIND` or `BACKFILL`): where one was killed half-way, nothing else
            may touch the job.
        lost: called, from another thread, where a lease could not be kept: the block should come to its end.

    Raises:
        JobHeld: another process holds it: with its pid, host and since when; also at the end of a block that lost its lease.
        StateChanged: a rewind or a backfill of the job was begun and is not done.
        WarehouseUnavailable: the folder cannot be written.
    """
    file = place(checkpoints) / job / ".lock"
    with _leased(file, job, lost) if isinstance(file, Stored) else _flocked(file, job):
        _refuse_half_done(file, job, finishing)
        yield


@contextmanager
def _leased(file: Stored, job: str, lost: Callable[[], None]) -> Iterator[None]:
    from microbatch.runner.lease import Lease

    lease = Lease(file, job, lost)
    lease.take()
    try:
        yield
    finally:
        lease.release()
    if lease.lost_to is not None:
        raise JobHeld(job, lease.lost_to)


@contextmanager
def _flocked(file: Path, job: str) -> Iterator[None]:
    """Source: flock(2): the lock belongs to the open file and goes with the process, SIGKILL included."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        stream = file.open("a+")
    except OSError as cause:
        raise WarehouseUnavailable(
            "the checkpoints cannot be written", f"{cause.strerror}: {cause.filename}"
        ) from cause
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            stream.seek(0)
            raise JobHeld(job, _holder(stream.read())) from cause
        stream.truncate(0)
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        stream.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
        stream.flush()
        yield


def _refuse_half_done(lock: Place, job: str, finishing: str) -> None:
    if finishing != REWIND and lock.with_name(REWIND).exists():
        what = "a rewind was begun and is not done: some of its tables are set back, others are not"
        raise StateChanged(job, what, f"finish it first: microbatch rewind {job}")
    if finishing != BACKFILL and (plan := lock.with_name(BACKFILL)).exists():
        begun = json.loads(plan.read_text())
        what = (
            f"a backfill of {begun['job']}.{begun['flow']} was begun and is not done: some of it may be in its tables"
        )
        raise StateChanged(job, what, f"finish it first: microbatch backfill {begun['job']} --flow {begun['flow']}")


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
    except ValueError:
        return "it has just begun"
    return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
