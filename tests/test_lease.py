"""A lease on an object store: with the store that object_store keeps in memory, which has the same conditional puts."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from microbatch.errors import JobHeld
from microbatch.places import place
from microbatch.runner.lease import Lease
from microbatch.runner.lock import held
from microbatch.stored import Stored

RUN_OUT_S = 2.1  # a lease of one second, and the second that whole seconds may hide


@pytest.fixture
def folder(tmp_path: Path) -> Stored:
    """A folder of a store that nobody else has."""
    found = place(f"memory://{tmp_path.name}/lake")
    assert isinstance(found, Stored)
    return found


def lease(folder: Stored, lasts_s: float = 60, beat_s: float = 10, **more: object) -> Lease:
    return Lease(folder / "job" / ".lock", "job", lasts_s=lasts_s, beat_s=beat_s, **more)  # type: ignore[arg-type]


@pytest.fixture
def left(folder: Stored) -> Stored:
    """A lease of one second whose holder was killed: nothing renews it."""
    dead = lease(folder, lasts_s=1, beat_s=100)
    dead.take()
    dead._over.set()  # what SIGKILL does to its threads
    return folder


def test_a_second_runner_is_told_who_holds_the_job_and_since_when(folder: Stored):
    with held(str(folder), "job"):
        told = r"job job is held by another run: pid \d+ on \S+ since 20\d\d-"
        with pytest.raises(JobHeld, match=told), held(str(folder), "job"):
            pass
        with held(str(folder), "other"):
            pass
    with held(str(folder), "job"):
        pass  # it was let go: nobody has to wait until it has run out


def race(leases: list[Lease]) -> list[Lease]:
    """Who of these gets the lease, when all reach for it at once."""
    line, got = threading.Barrier(len(leases)), []

    def reach(each: Lease) -> None:
        line.wait()
        with suppress(JobHeld):
            each.take()
            got.append(each)

    threads = [threading.Thread(target=reach, args=(each,)) for each in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def test_of_many_runners_that_start_together_one_gets_the_lease(folder: Stored):
    for _ in range(20):
        (winner,) = race([lease(folder) for _ in range(8)])
        winner.release()


def test_a_lease_that_has_run_out_is_taken_over_by_one_of_many(left: Stored):
    with pytest.raises(JobHeld, match="since"):
        lease(left).take()
    time.sleep(RUN_OUT_S)
    (winner,) = race([lease(left) for _ in range(8)])
    winner.release()


def test_a_lease_that_is_renewed_does_not_run_out(folder: Stored):
    mine = lease(folder, lasts_s=1, beat_s=0.2)
    mine.take()
    time.sleep(2.5)
    with pytest.raises(JobHeld):
        lease(folder).take()
    mine.release()
    assert mine.lost_to is None


def test_who_lost_its_lease_is_told_and_ends_with_the_name_of_who_has_it(left: Stored):
    """A process that slept for longer than its lease lasts wakes up, and somebody else has the job."""
    told = threading.Event()
    slept = lease(left, lasts_s=60, beat_s=0.1, lost=told.set)
    time.sleep(RUN_OUT_S)
    slept.take()
    found = slept.file.get()
    assert found
    slept.file.put(found[0].replace(slept._mine.token.encode(), b"another"), found[1])
    assert told.wait(5)
    slept.release()
    assert "pid" in (slept.lost_to or "")
    assert b"another" in slept.file.read_bytes()  # what is another's is not let go


@pytest.mark.slow
def test_the_block_that_lost_its_lease_raises_at_its_end(folder: Stored):
    lost = threading.Event()

    def block() -> None:
        with held(str(folder), "job", lost=lost.set):
            file = folder / "job" / ".lock"
            found = file.get()
            assert found
            file.put(found[0].replace(b'"token": "', b'"token": "x'), found[1])
            assert lost.wait(20)

    with pytest.raises(JobHeld, match="pid"):
        block()


def test_a_lock_of_an_unknown_form_is_nobodys_to_take(folder: Stored):
    (folder / "job" / ".lock").write_text("{}")
    with pytest.raises(JobHeld, match="no lock of this version"):
        lease(folder).take()
