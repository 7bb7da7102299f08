"""One run at a time on an object store: a lease, which its holder renews and which runs out when the holder is gone.

The lease is one object that is never deleted. Every change of it is a conditional put: made where there was none, or put in place
of exactly what was read. So of any number of runs that want it, one gets it, whatever each of them believes. Whether it has run
out is judged by the store's clock alone, so that no two machines need to agree on the time.

Guarantee:
    At most one holder believes itself the holder, as long as it runs: one that could not renew in time, or finds that somebody
    else has the lease, is told so before the lease can be had by another. A batch that is under way then is not cut off; the
    key of its commit is the fence behind this one.

Source:
    Amazon S3 manual, "Conditional writes" (If-None-Match, If-Match); Gray and Cheriton, "Leases" (1989).
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from microbatch.errors import ConfigError, JobHeld, TransientError, WarehouseUnavailable
from microbatch.stored import Stored

LASTS_S = 60.0  # after the last renewal; so long a job stays held when its run was killed
BEAT_S = 10.0  # between two renewals


@dataclass(frozen=True)
class Holder:
    """What the object says: who holds the lease, and the count of renewals. `token` is empty: nobody holds it.

    Attributes:
        lasts_s: how long after the last renewal it holds, as its holder keeps it.
    """

    token: str
    pid: int
    host: str
    since: str
    lasts_s: float
    beat: int = 0

    def to_json(self) -> bytes:
        return json.dumps(vars(self)).encode()

    @staticmethod
    def of(content: bytes) -> Holder | None:
        try:
            return Holder(**json.loads(content))
        except (ValueError, TypeError):
            return None

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host} since {self.since}"


class Lease:
    """The lease of one job.

    Args:
        file: the object.
        lost: called once, from another thread, when the lease is lost while it is held.
        lasts_s, beat_s: see LASTS_S and BEAT_S.
    """

    def __init__(
        self,
        file: Stored,
        job: str,
        lost: Callable[[], None] = lambda: None,
        lasts_s: float = LASTS_S,
        beat_s: float = BEAT_S,
    ) -> None:
        self.file, self.job, self.beat_s, self._tell = file, job, beat_s, lost
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._mine = Holder(uuid.uuid4().hex, os.getpid(), socket.gethostname(), since, lasts_s)
        self._mark: Mapping[str, str] | None = None
        self._renewed = 0.0  # when the last renewal that succeeded was begun, by this process's clock
        self.lost_to: str | None = None  # who has it now, where it was lost
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=each, name=f"lease of {job}", daemon=True) for each in (self._beat, self._watch)
        ]

    def take(self) -> None:
        """Hold the lease from now on. Never waits.

        Raises:
            JobHeld: another run holds it: with its pid, host and since when.
            WarehouseUnavailable: the store does not answer.
        """
        found = self.file.get()
        if found is not None:
            holder = Holder.of(found[0])
            if holder is None:
                raise JobHeld(self.job, f"{self.file} is no lock of this version, so nobody knows whose it is")
            if holder.token and not self._ran_out(holder, found[2]):
                raise JobHeld(self.job, str(holder))
        if not self._put(self._mine, found[1] if found else None):
            raise JobHeld(self.job, self._holder())
        for thread in self._threads:
            thread.start()

    def release(self) -> None:
        """Let it go, so that the next run need not wait until it has run out; nothing where it was lost."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self.lost_to is None:
            with suppress(TransientError, ConfigError):  # then it runs out by itself
                self._put(Holder("", self._mine.pid, self._mine.host, self._mine.since, 0), self._mark)

    def _beat(self) -> None:
        while not self._over.wait(self.beat_s):
            # The next beat may come through; how long that may go on, `_watch` says.
            with suppress(TransientError, ConfigError):
                if not self._put(self._renewal(), self._mark):
                    self._loses(self._holder())

    def _watch(self) -> None:
        """A put that gets no answer can hang for longer than the lease lasts: so somebody else looks at the clock."""
        while not self._over.wait(self.beat_s / 5):
            # Another run may have it once it has run out; from one beat before that on, this one does not count on it.
            if time.monotonic() - self._renewed > self._mine.lasts_s - self.beat_s:
                self._loses("it could not be renewed in time, and may be another's by now")

    def _renewal(self) -> Holder:
        return Holder(**{**vars(self._mine), "beat": self._mine.beat + 1})

    def _loses(self, to: str) -> None:
        self._over.set()
        if self.lost_to is None:
            self.lost_to = to
            self._tell()

    def _put(self, holder: Holder, instead_of: Mapping[str, str] | None) -> bool:
        began = time.monotonic()
        mark = self.file.put(holder.to_json(), instead_of)
        if mark is None:
            # The library tries again what got no answer: the put that was refused may be the echo of one that was done.
            found = self.file.get()
            if found is None or found[0] != holder.to_json():
                return False
            mark = found[1]
        self._mine, self._mark, self._renewed = holder if holder.token else self._mine, mark, began
        return True

    def _holder(self) -> str:
        found = self.file.get()
        holder = Holder.of(found[0]) if found else None
        return str(holder) if holder and holder.token else "it has just come or gone"

    def _ran_out(self, holder: Holder, renewed: datetime) -> bool:
        """Whether the store's clock says so; asked by writing an object, which the store dates."""
        clock = self.file.with_name(f"{self.file.name}.clock")
        clock.write_text(self._mine.token)
        now = clock.seen()
        if now is None:
            raise WarehouseUnavailable(f"{clock} cannot be written", "it was deleted as soon as it was there")
        # The store tells whole seconds: a lease that lasts one more is never taken too early.
        return now.modified - renewed > timedelta(seconds=holder.lasts_s + 1)
