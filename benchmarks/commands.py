"""Commands as a person types them, measured from outside: seconds, CPU-seconds and memory of the whole process tree."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
SUITE = ROOT / "benchmarks" / "suite"
SUBREAPER = (
    36  # PR_SET_CHILD_SUBREAPER of Linux: a JVM that outlives its Python is waited for here, so that it is counted
)
LOOK_S = 0.2  # how often memory is looked at


@dataclass(frozen=True)
class Done:
    """A command that has ended.

    Attributes:
        began: seconds since 1970.
        peak_mib: the most memory the tree held at once; 0 where nobody looked.
    """

    began: float
    wall: float
    cpu: float
    peak_mib: float
    out: str


def command(words: Sequence[str], home: Path | None = None, watch: bool = False, **variables: str) -> Done:
    """Run a command to its end; nothing else may run below this process meanwhile.

    Args:
        home: the home of the bench suite's tables, where the command is about it.
        watch: look at its memory.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    env: Mapping[str, str] = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        **({"BENCH_HOME": str(home)} if home else {}),
        **variables,
    }
    before, began, start = _children(), time.time(), time.monotonic()
    with subprocess.Popen(
        words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        memory = _Memory(process.pid) if watch else None
        out, err = process.communicate()
        took = time.monotonic() - start
    peak = memory.end() if memory else 0.0
    _reap()
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}:\n{err[-3000:]}")
    return Done(began, took, _children() - before, peak, out)


def microbatch(*words: str, home: Path, suite: Path = SUITE, env: str = "local", watch: bool = False) -> Done:
    """A command of the engine's."""
    line = [sys.executable, "-m", "microbatch", *words, "--suite", str(suite), "--env", env]
    return command(line, home, watch)


def by_hand(job: str, *options: str, home: Path, watch: bool = False) -> Done:
    """The same job by hand."""
    line = [sys.executable, "-m", "benchmarks.orders_by_hand", job, "--home", str(home), *options]
    return command(line, home, watch)


def tree_cpu(pid: int) -> float:
    """CPU-seconds of a process and all below it, those that have ended included."""
    root = psutil.Process(pid)
    seconds = 0.0
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            seconds += used.user + used.system + used.children_user + used.children_system
    return seconds


class _Memory:
    """Looks at the memory of a process tree until told to end."""

    def __init__(self, pid: int) -> None:
        self._pid, self._peak, self._over = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> float:
        """The most that was seen [MiB]."""
        self._over.set()
        self._thread.join()
        return self._peak / 2**20

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(self._pid)
                held = 0
                for process in (root, *root.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        held += process.memory_info().rss
                self._peak = max(self._peak, held)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _reap(within_s: float = 20) -> None:
    """Wait for what a command left behind: its JVM ends a moment later."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            time.sleep(0.02)
