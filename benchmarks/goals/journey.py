"""The real job, `daily_sales` over Complete Journey, against the same four flows by hand."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks import complete_journey, tables
from benchmarks.commands import ROOT, command
from benchmarks.goals.goal import Goal, Size
from benchmarks.timing import Claim, Finding, Sample, Turns, interleave, ratio, same

ROOMS = ("jobs", "transforms", "conf", "expectations")
TABLES = {
    "silver/sales": (["order_id", "product_id"], ["order_id", "product_id", "amount", "order_date", "department"]),
    "gold/daily_sales": (
        ["order_date", "store_id", "department"],
        ["order_date", "store_id", "department", "orders", "lines", "units", "revenue"],
    ),
}


def _whole_job(folder: Path, size: Size) -> Finding:
    turns = _turns(folder / "whole_job", size, ("S", "B1", "B0") if size["defaults"] else ("S", "B1"), audit=False)
    claims = [Claim("S/B1", ratio(turns, "S", "B1"), at_most=0.85)]
    claims += [Claim("S/B0", ratio(turns, "S", "B0"))] if "B0" in turns else []
    note = f"daily_sales over {size['days']} days of Complete Journey, {size['files']} files a batch; whole commands"
    return Finding(tuple(claims), turns, ratio(turns, "B1 again", "B1"), len(turns["S"]), size, note)


def _make_run(folder: Path, size: Size) -> Finding:
    turns = _turns(folder / "make_run", size, ("S", "B0"), audit=True)
    return Finding(
        (Claim("S/B0", ratio(turns, "S", "B0"), at_most=0.35),),
        turns,
        None,
        len(turns["S"]),
        size,
        f"{size['days']} days, {size['files']} files a batch; S is `run` and `audit`, as `make run` has them, set-up aside",
    )


def _turns(own: Path, size: Size, subjects: tuple[str, ...], audit: bool) -> Turns:
    landing = landed(own, size["days"])
    names = (*subjects, *(["B1 again"] if "B1" in subjects else []))
    left: dict[str, list[object]] = {}

    def turn(name: str) -> Sample:
        home = own / name.replace(" ", "_")
        shutil.rmtree(home, ignore_errors=True)
        done = (
            _engine(landing, home, size["files"], audit) if name == "S" else _hand(landing, home, name, size["files"])
        )
        warehouse = (home / "data" if name == "S" else home) / "warehouse"
        left[name] = [tables.content(warehouse / table, *which) for table, which in TABLES.items()]
        left[name].append(tables.letters(warehouse))
        versions = sum(tables.version(log.parent) + 1 for log in warehouse.glob("[!o]*/*/_delta_log"))
        return Sample(done[0], done[1], {"versions of its tables": versions})

    turns = interleave(
        {name: lambda _, name=name: turn(name) for name in names}, size["rounds"], drop=int(size["rounds"] > 2)
    )
    same(left)
    return turns


def landed(own: Path, days: int) -> Path:
    """The first days, as links with the times the shop gave the files: files are taken in by time of change."""
    year, into = ROOT / "data" / "landing", own / "landing"
    complete_journey.land(year)
    shutil.rmtree(into, ignore_errors=True)
    for source, count in (("order_lines", days), ("products", 1)):
        (into / source).mkdir(parents=True)
        for file in sorted((year / source).glob("[!_.]*"))[:count]:
            shutil.copy2(file, into / source)
    return into


def _engine(landing: Path, home: Path, files: int, audit: bool) -> tuple[float, float]:
    for room in ROOMS:
        shutil.copytree(ROOT / room, home / room, ignore=shutil.ignore_patterns("__pycache__"))
    conf = home / "conf" / "base" / "daily_sales.yml"
    conf.write_text(conf.read_text().replace("max_files_per_batch: 31", f"max_files_per_batch: {files}"))
    shutil.copytree(landing, home / "data" / "landing")
    line = [sys.executable, "-m", "microbatch"]
    done = [command([*line, "run", "daily_sales", "--suite", str(home)])]
    if audit:
        done.append(command([*line, "audit", "daily_sales", "--suite", str(home)]))
    return sum(each.wall for each in done), sum(each.cpu for each in done)


def _hand(landing: Path, home: Path, name: str, files: int) -> tuple[float, float]:
    line = [sys.executable, "-m", "benchmarks.by_hand", "--landing", str(landing), "--out", str(home)]
    done = command([*line, "--files", str(files), *(["--tuned"] if name.startswith("B1") else [])])
    return done.wall, done.cpu


WHOLE_JOB = Goal(
    "whole_job",
    "a whole job of some twenty batches: S/B1 at most 0.85",
    _whole_job,
    full={"days": 93, "files": 5, "rounds": 4, "defaults": 1},
    smoke={"days": 10, "files": 5, "rounds": 1, "defaults": 0},
)
MAKE_RUN = Goal(
    "make_run",
    "`make run`, all of Complete Journey: at most 0.35 of B0 doing the same four flows",
    _make_run,
    full={"days": 365, "files": 31, "rounds": 2},
    smoke={"days": 31, "files": 31, "rounds": 1},
)
