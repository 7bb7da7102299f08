"""What a command costs besides its rows: nothing to do, a cold start, and many jobs in one process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks import tables
from benchmarks.commands import SUITE, Done, by_hand, microbatch
from benchmarks.goals.goal import Goal, Size
from benchmarks.orders import COLUMNS, Pool, consecutive, land
from benchmarks.timing import Claim, Finding, Sample, interleave, ratio, same, wall

JOB, TABLE, ROWS = "append_orders", "bronze/orders", 1_000


def _landed(home: Path, file: Path, job: str = JOB) -> Path:
    shutil.rmtree(home, ignore_errors=True)
    land([file], home / "landing" / job)
    return home


def _file(folder: Path) -> Path:
    return Pool(folder, f"{JOB}_{ROWS}_0").file(1, consecutive(ROWS, ROWS))


def _idle(folder: Path, size: Size) -> Finding:
    file, own = _file(folder), folder / "idle"
    engine, hand = _landed(own / "S", file), _landed(own / "B0", file)
    microbatch("run", JOB, home=engine)
    by_hand(JOB, home=hand)
    before = [tables.size(home) for home in (engine, hand)]

    def idle(_: int) -> Sample:
        done = microbatch("run", JOB, home=engine)
        if "nothing to do" not in done.out:
            raise RuntimeError(f"there was something to do: {done.out}")
        return Sample(done.wall, done.cpu)

    def nothing(_: int) -> Sample:
        done = by_hand(JOB, home=hand)
        return Sample(done.wall, done.cpu)

    turns = interleave({"S": idle, "B0": nothing, "S again": idle}, size["rounds"])
    after = [tables.size(home) for home in (engine, hand)]
    return Finding(
        (
            Claim("S/B0", ratio(turns, "S", "B0"), at_most=0.05),
            Claim("S", wall(turns["S"]), at_most=1.0, unit="s"),
            Claim("files that S added", after[0][0] - before[0][0], at_most=0),
        ),
        turns,
        ratio(turns, "S again", "S"),
        len(turns["S"]),
        size,
        "the whole command over a folder of files all of which were taken in before",
    )


def _cold(folder: Path, size: Size) -> Finding:
    file, own = _file(folder), folder / "cold"

    def until_committed(run: Callable[[Path], Done], name: str) -> Sample:
        home = _landed(own / name, file)
        done = run(home)
        commit = home / "warehouse" / TABLE / "_delta_log" / f"{0:020}.json"
        return Sample(commit.stat().st_mtime - done.began, done.cpu, parts={"whole command": done.wall})

    subjects = {
        "S": lambda _: until_committed(lambda home: microbatch("run", JOB, home=home), "S"),
        "B0": lambda _: until_committed(lambda home: by_hand(JOB, home=home), "B0"),
        "B1": lambda _: until_committed(lambda home: by_hand(JOB, "--tuned", home=home), "B1"),
        "S again": lambda _: until_committed(lambda home: microbatch("run", JOB, home=home), "S"),
    }
    turns = interleave(subjects, size["rounds"])
    left = {name: tables.content(own / name / "warehouse" / TABLE, ["order_id"], COLUMNS) for name in ("S", "B0", "B1")}
    same(left)
    return Finding(
        (
            Claim("S/B0", ratio(turns, "S", "B0"), at_most=0.35),
            Claim("S/B1", ratio(turns, "S", "B1")),
            Claim("S", wall(turns["S"]), unit="s"),
        ),
        turns,
        ratio(turns, "S again", "S"),
        len(turns["S"]),
        size,
        "from the start of the command to the first commit of the table, by the time of its file; no subject resolves jars",
    )


def _eight(folder: Path, size: Size) -> Finding:
    file, own = _file(folder), folder / "eight"
    jobs = [f"orders_{number}" for number in range(1, size["jobs"] + 1)]
    suite = _suite_of(jobs, own / "suite")

    def home(name: str) -> Path:
        shutil.rmtree(own / name, ignore_errors=True)
        for job in jobs:
            land([file], own / name / "landing" / job)
        return own / name

    def together(_: int) -> Sample:
        done = microbatch("run", *jobs, home=home("together"), suite=suite)
        return Sample(done.wall, done.cpu)

    def apart(_: int) -> Sample:
        at = home("apart")
        done = [microbatch("run", job, home=at, suite=suite) for job in jobs]
        return Sample(sum(each.wall for each in done), sum(each.cpu for each in done))

    turns = interleave({"one process": together, f"{len(jobs)} processes": apart}, size["rounds"], drop=0)
    for name in ("together", "apart"):
        same({job: tables.content(own / name / "warehouse" / "bronze" / job, ["order_id"], COLUMNS) for job in jobs})
    return Finding(
        (Claim("one process/eight", ratio(turns, "one process", f"{len(jobs)} processes"), at_most=0.20),),
        turns,
        None,
        len(turns["one process"]),
        size,
        "eight jobs of one append flow each, 1,000 rows; whole commands",
    )


def _suite_of(jobs: list[str], folder: Path) -> Path:
    """A suite of so many jobs that are alike but for their names."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SUITE, folder, ignore=shutil.ignore_patterns("__pycache__", "backlog"))
    declared, conf = (folder / "jobs" / f"{JOB}.py").read_text(), (folder / "conf/base" / f"{JOB}.yml").read_text()
    for old in [*(folder / "jobs").glob("[!_]*.py"), *(folder / "conf/base").glob("*_*.yml")]:
        old.unlink()
    for job in jobs:
        (folder / "jobs" / f"{job}.py").write_text(declared.replace("bronze.orders", f"bronze.{job}"))
        (folder / "conf/base" / f"{job}.yml").write_text(conf.replace(JOB, job))
        shutil.copytree(folder / "expectations" / JOB, folder / "expectations" / job)
    for old in (folder / "expectations").iterdir():
        if old.name not in jobs:
            shutil.rmtree(old)
    return folder


IDLE = Goal(
    "idle",
    "nothing new, the whole command: at most 0.05 of B0, at most 1 s",
    _idle,
    full={"rounds": 9},
    fast={"rounds": 4},
    smoke={"rounds": 2},
)
COLD = Goal(
    "cold_start",
    "cold start to the first committed row: at most 0.35 of B0",
    _cold,
    full={"rounds": 8},
    fast={"rounds": 2},
    smoke={"rounds": 1},
)
EIGHT = Goal(
    "eight_jobs",
    "8 jobs in one process: at most 0.20 of 8 processes",
    _eight,
    full={"rounds": 3, "jobs": 8},
    smoke={"rounds": 1, "jobs": 2},
)
