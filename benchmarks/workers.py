"""Warm subjects, side by side: each in its own process, asked in turn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.commands import ROOT, tree_cpu
from benchmarks.orders import land
from benchmarks.timing import Sample

# Subject -> what its process is started as. The last two are the same: what they differ by is the noise of the machine.
KINDS = {"S": "engine", "B0": "defaults", "B1": "tuned", "B1 again": "tuned", "GX": "tuned", "DQX": "tuned"}
PEERS = ROOT / ".peers" / "bin" / "python"  # made by `make peers`: what does not go with the suite's own packages


class Worker:
    """One subject that stays warm.

    Attributes:
        home: its tables, checkpoints and landed files.
    """

    def __init__(self, subject: str, home: Path) -> None:
        self.subject, self.home = subject, home
        home.mkdir(parents=True, exist_ok=True)
        self._log = (home / "worker.log").open("ab")
        python = str(PEERS) if subject == "DQX" else sys.executable
        line = [python, "-m", "benchmarks.worker", KINDS[subject]]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(line, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, stderr=self._log, text=True)

    def ready(self) -> None:
        """Wait for its session."""
        self._answer()

    def ask(self, **words: Any) -> dict[str, Any]:
        """Let it do something, and wait."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def run(self, job: str, files: Iterable[Path] = (), home: Path | None = None, **words: Any) -> dict[str, Any]:
        """Land files for a job and let it take them in; its batches, their Spark jobs, and CPU-seconds in all."""
        home = home or self.home
        land(files, home / "landing" / job)
        before = tree_cpu(self._process.pid)
        found = self.ask(do="run", job=job, home=str(home), **words)
        return {**found, "cpu": tree_cpu(self._process.pid) - before}

    def end(self) -> None:
        """Let it go."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._log.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            end = (self.home / "worker.log").read_text(errors="replace")[-3000:]
            raise RuntimeError(f"{self.subject} ended:\n{end}")
        return dict(json.loads(line))


@contextmanager
def workers(folder: Path, *subjects: str) -> Iterator[dict[str, Worker]]:
    """Subjects, each with an empty home below the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    made = {subject: Worker(subject, folder / subject.replace(" ", "_")) for subject in subjects}
    try:
        for worker in made.values():
            worker.ready()
        yield made
    finally:
        for worker in made.values():
            worker.end()


def of_batches(found: dict[str, Any], skip: int = 1) -> Sample:
    """A turn of several batches as one sample: the median batch, the first of the query left out."""
    batches = found["batches"][skip:] or found["batches"]
    jobs = found["jobs"][skip:] or found["jobs"]
    parts = {part: median(batch[part] for batch in batches) for part in ("addBatch", "walCommit", "commitOffsets")}
    seconds, cpu = median(batch["seconds"] for batch in batches), found["cpu"] / len(found["batches"])
    return Sample(seconds, cpu, {"Spark jobs": max(jobs, default=0)}, parts)
