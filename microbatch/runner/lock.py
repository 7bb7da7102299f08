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

UNFINISHED = "rewind.json"  # beside the lock: the plan of a rewind that was begun, until it is done


@contextmanager
def held(
    checkpoints: str, job: str, rewinding: bool = False, lost: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold `<checkpoints>/<job>/.lock` for as long as the block runs. Never waits.

    Args:
        rewinding: whether the block rewinds the job: nothing else may touch one whose rewind was killed half-way.
        lost: called, from another thread, where a lease could not be kept: the block should come to its end.

    Raises:
        JobHeld: another process holds it: with its pid, host and since when; also at the end of a block that lost its lease.
        StateChanged: a rewind of the job was begun and is not done.
        WarehouseUnavailable: the folder cannot be written.
    """
    file = place(checkpoints) / job / ".lock"
    with _leased(file, job, lost) if isinstance(file, Stored) else _flocked(file, job):
        _refuse_half_rewound(file, job, rewinding)
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


def _refuse_half_rewound(lock: Place, job: str, rewinding: bool) -> None:
    if lock.with_name(UNFINISHED).exists() and not rewinding:
        what = "a rewind was begun and is not done: some of its tables are set back, others are not"
        raise StateChanged(job, what, f"finish it first: microbatch rewind {job}")


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
    except ValueError:
        return "it has just begun"
    return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
