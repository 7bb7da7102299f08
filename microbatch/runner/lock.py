"""One run at a time: a lock per job, freed by the operating system however the run ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from microbatch.errors import JobHeld, StateChanged, WarehouseUnavailable

UNFINISHED = "rewind.json"  # beside the lock: the plan of a rewind that was begun, until it is done


@contextmanager
def held(checkpoints: str, job: str, rewinding: bool = False) -> Iterator[None]:
    """Hold `<checkpoints>/<job>/.lock` for as long as the block runs. Never waits.

    Args:
        rewinding: whether the block rewinds the job: nothing else may touch one whose rewind was killed half-way.

    Raises:
        JobHeld: another process holds it: with its pid, host and since when.
        StateChanged: a rewind of the job was begun and is not done.
        WarehouseUnavailable: the folder cannot be written.

    Source:
        flock(2): the lock belongs to the open file and goes with the process, SIGKILL included.
    """
    file = Path(checkpoints) / job / ".lock"
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
        if (file.parent / UNFINISHED).exists() and not rewinding:
            what = "a rewind was begun and is not done: some of its tables are set back, others are not"
            raise StateChanged(job, what, f"finish it first: microbatch rewind {job}")
        yield


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
    except ValueError:
        return "it has just begun"
    return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
