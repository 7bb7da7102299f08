"""A standalone master and two workers of one core each, against the two cores of one process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from benchmarks import tables
from benchmarks.commands import ROOT
from benchmarks.goals.goal import Goal, Size
from benchmarks.goals.journey import TABLES, landed
from benchmarks.timing import Claim, Finding, Sample, interleave, ratio, same

CORES = 2


def _cluster(folder: Path, size: Size) -> Finding:
    from tests.cluster import cluster, install  # draws in what only the tests' servers need

    own = folder / "cluster"
    landing, release = landed(own, size["days"]), _release(own)

    def turn(name: str) -> Sample:
        home = own / name
        shutil.rmtree(home, ignore_errors=True)
        (home / "events").mkdir(parents=True)
        installed = install(release, home)
        with (installed.folder / "conf" / "cluster" / "spark.conf").open("a") as conf:
            conf.write(
                f"\nspark.eventLog.enabled true\nspark.eventLog.compress false\nspark.eventLog.dir {home}/events\n"
            )
        with cluster(home / "cluster", CORES) if name == "cluster" else nullcontext(f"local[{CORES}]") as master:
            started = time.monotonic()
            code, told = installed.done(master, "run", "daily_sales", SALES_LANDING=str(landing), SALES_ROOT=str(home))
            took = time.monotonic() - started
        if code:
            raise RuntimeError(f"daily_sales on {master} ended with {code}:\n{told[-3000:]}")
        idle, tasks = without_task(home / "events")
        return Sample(took, counts={"tasks": tasks}, parts={"share of time with no task": idle})

    subjects = {"local": lambda _: turn("local"), "cluster": lambda _: turn("cluster")}
    turns = interleave(subjects, size["rounds"], drop=0)
    same({
        name: [tables.content(own / name / "warehouse" / table, *which) for table, which in TABLES.items()]
        for name in subjects
    })  # fmt: skip
    idle = min(sample.parts["share of time with no task"] for sample in turns["cluster"])
    return Finding(
        (
            Claim("efficiency, local/cluster", ratio(turns, "local", "cluster"), at_least=0.90),
            Claim("time with no task running", idle, at_most=0.05),
        ),
        turns,
        None,
        len(turns["cluster"]),
        size,
        f"daily_sales over {size['days']} days by spark-submit, both with conf/cluster/spark.conf; whole commands; the "
        "time between the first and the last task, from the event log",
    )


def without_task(events: Path) -> tuple[float, int]:
    """Of the time between the first and the last task, the share in which none ran; and how many there were."""
    spans = sorted(_tasks(events))
    busy, end = 0, spans[0][0]
    for launched, finished in spans:
        busy += max(0, finished - max(launched, end))
        end = max(end, finished)
    return 1 - busy / max(1, end - spans[0][0]), len(spans)


def _tasks(events: Path) -> Iterator[tuple[int, int]]:
    for file in events.rglob("*"):
        if file.is_file() and not file.name.startswith((".", "appstatus")):
            for line in file.read_text().splitlines():
                if line.startswith('{"Event":"SparkListenerTaskEnd"'):
                    told = json.loads(line)["Task Info"]
                    yield told["Launch Time"], told["Finish Time"]


def _release(own: Path) -> Path:
    """What is submitted, made anew from the code as it is."""
    dist = own / "dist"
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    line = ["make", "--silent", "--old-file=setup", "dist", f"DIST={dist}"]
    subprocess.run(line, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
    return dist / "release"


CLUSTER = Goal(
    "cluster",
    "standalone cluster, two workers of one core, against local[2]: efficiency at least 0.9; no task running at most 5 %",
    _cluster,
    full={"days": 93, "rounds": 2},
    smoke={"days": 5, "rounds": 1},
)
