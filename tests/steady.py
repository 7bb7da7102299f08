"""Let a run go on, and look whether its memory stays flat: `python -m tests.steady --minutes 30`.

A suite of two flows is fed a file every second or so while `microbatch run --all --continuous` takes it in. The resident memory
of Python and of the JVM, their threads and open files are sampled; at the end SIGTERM has to end the run with 0, and `audit` has
to find every row. Memory is flat where the median of the last third is at most `GROWTH` above that of the third before: the
first third is the time in which caches fill and the JVM's heap finds its size.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from microbatch.commands import audit
from microbatch.config import load
from tests.orders import ORDERS_CONF, ORDERS_JOB, ORDERS_RULES, ORDERS_TRANSFORM, order

HERE = Path(__file__).resolve().parent.parent
GROWTH = 0.05
MIB = 1024  # of the kB that /proc counts in
# A heap of the default size grows for hours before it is first collected: that it ends somewhere is seen sooner in a small one.
SPARK = "spark.driver.memory 1g\n"
FIRST_S = 300  # by when the first batch is there, on a machine that has much else to do


@dataclass(frozen=True)
class Sample:
    """What a run holds at one moment: MiB of resident memory, threads and open files of both processes."""

    minute: float
    python: float
    jvm: float
    threads: int
    files: int
    batches: int
    names: Counter[str] = field(repr=False)

    def line(self) -> str:
        sizes = f"{self.python:>8,.0f}  {self.jvm:>7,.0f}"
        return f"{self.minute:>6.1f}  {self.batches:>7,}  {sizes}  {self.threads:>7}  {self.files:>5}"


HEAD = "minute  batches  Python MiB  JVM MiB  threads  files"


class Steady:
    """A suite that is fed, and the run that takes it in."""

    def __init__(self, root: Path) -> None:
        self.root, self.orders = root, 0
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        files = {
            "jobs/orders.py": ORDERS_JOB,
            "transforms/orders.py": ORDERS_TRANSFORM,
            "expectations/orders/orders.yml": ORDERS_RULES,
            "conf/base/orders.yml": ORDERS_CONF,
            "conf/base/environment.yml": f"metrics: {{port: {self.port}}}\n",
            "conf/local/spark.conf": SPARK,
        }
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        self.landing = root / "data" / "landing" / "orders"
        self.landing.mkdir(parents=True)

    def feed(self) -> None:
        """Land ten orders, some of them new versions of old ones, and one that breaks a rule."""
        lines = [json.dumps(order((self.orders + n) % 5_000, minute=self.orders % 60)) for n in range(9)]
        lines.append(json.dumps(order(self.orders, "-1.00")))
        self.orders += 10
        half = self.landing / f"_{self.orders}.json"
        half.write_text("".join(f"{line}\n" for line in lines))
        half.rename(self.landing / f"{self.orders}.json")

    def start(self) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "microbatch", "run", "--all", "--continuous", "--suite", str(self.root)]
        with (self.root / "log").open("w") as log:
            return subprocess.Popen(words, cwd=HERE, stdout=subprocess.PIPE, stderr=log, text=True)

    def batches(self) -> int:
        """Those of all flows so far, as the run itself says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=10) as answer:
            return sum(flow["batches"] for flow in json.loads(answer.read())["flows"].values())

    def sample(self, run: subprocess.Popen[str], minute: float) -> Sample:
        pids = [run.pid, _jvm(run.pid)]
        python, jvm = (_status(pid, "VmRSS") / MIB for pid in pids)
        files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
        names = _names(pids)
        return Sample(minute, python, jvm, names.total(), files, self.batches(), names)


def _jvm(pid: int) -> int:
    """The JVM of a run: its oldest child, for what is forked to start a program ends at once."""
    return min(int(child) for task in _threads(pid) for child in _read(task / "children").split())


def _threads(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):  # a thread ends when it likes
        return ""


def _names(pids: Sequence[int]) -> Counter[str]:
    """How many threads there are of each name, numbers left out."""
    return Counter(re.sub(r"\d+", "N", _read(task / "comm").strip()) for pid in pids for task in _threads(pid))


def _status(pid: int, name: str) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def grown(samples: Sequence[Sample], name: str) -> float:
    """How far the last third is above the one before, as a part of it."""
    third = len(samples) // 3
    earlier, last = samples[-2 * third : -third], samples[-third:]
    before, now = (median(getattr(each, name) for each in some) for some in (earlier, last))
    return float(now / before - 1)


def steady(folder: Path, minutes: float, every_s: float) -> int:
    """Feed and watch a run for so long; 0 where memory is flat and every row is where it belongs."""
    suite, samples = Steady(folder), list[Sample]()
    suite.feed()
    run = suite.start()
    try:
        until = time.monotonic() + FIRST_S
        while not (folder / "data/warehouse/silver/orders").exists():
            if run.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"no batch came: {(folder / 'log').read_text()}")
            time.sleep(0.5)
        began, step = time.monotonic(), max(2.0, minutes * 60 / 120)
        print(HEAD, flush=True)
        while (passed := time.monotonic() - began) < minutes * 60:
            suite.feed()
            if passed >= len(samples) * step:
                samples.append(suite.sample(run, passed / 60))
                if len(samples) % 6 == 1:
                    print(samples[-1].line(), flush=True)
            time.sleep(every_s)
    finally:
        run.send_signal(signal.SIGTERM)
        told, _ = run.communicate(timeout=300)
    print(told)
    loaded = load(folder)
    lost = audit.execute(loaded, loaded.job("orders"))
    growth = {name: grown(samples, name) for name in ("python", "jvm", "threads", "files")}
    print(", ".join(f"{name} {part:+.1%}" for name, part in growth.items()), "in the last third against the one before")
    flat = all(part <= GROWTH for part in growth.values())
    more = (samples[-1].names - samples[len(samples) // 3].names).most_common(5)
    print("threads that came since the first third:", ", ".join(f"{count} {name}" for name, count in more) or "none")
    print("flat" if flat else f"not flat: more than {GROWTH:.0%}")
    return int(bool(run.returncode or lost or not flat))


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=1.0, metavar="S", help="seconds between two files")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="microbatch-steady-") as folder:
        return steady(Path(folder), given.minutes, given.every)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
