"""What grows with the table, and with the number of batches: nothing should."""

from __future__ import annotations

import shutil
from math import log
from pathlib import Path
from statistics import median

from deltalake import write_deltalake

from benchmarks import tables
from benchmarks.goals.goal import Goal, Size
from benchmarks.orders import COLUMNS, Pool, consecutive, orders, recent, some_of
from benchmarks.timing import Claim, Finding, Sample, interleave, ratio, same, say, wall
from benchmarks.workers import Worker, of_batches, workers

JOB, TABLE = "merge_orders", "silver/orders"
CHUNK = 100_000  # rows of a file of the table that is there: what micro-batches of that size leave


def _merge(folder: Path, size: Size) -> Finding:
    rows, largest = size["rows"], size["largest"]
    sizes = [largest // 100, largest // 10, largest]
    for at in sizes:
        _table(folder, at)
    with workers(folder / "growth", "S", "B0", "B1") as subjects:

        def turn(worker: Worker, at: int, number: int) -> Sample:
            home = worker.home / str(at)
            if not (home / "warehouse" / TABLE).exists():
                shutil.copytree(_table(folder, at), home / "warehouse" / TABLE)
            pool = Pool(folder, f"recent_{at}_{rows}")
            keys = recent(at + number * (rows - rows // 2), rows, number)
            return of_batches(worker.run(JOB, [pool.file(100_000 + number, keys)], home), skip=0)

        asked = [(name, at) for name in subjects for at in sizes]  # all take as many turns, so all are as warm
        turns = interleave(
            {
                f"{name}, {at:,} rows": lambda number, name=name, at=at: turn(subjects[name], at, number)
                for name, at in asked
            },
            size["rounds"],
        )
        same({
            name: tables.content(worker.home / str(largest) / "warehouse" / TABLE, ["order_id"], COLUMNS)
            for name, worker in subjects.items()
        })  # fmt: skip
    took = {at: wall(turns[f"S, {at:,} rows"]) for at in sizes}
    exponent = log(took[largest] / took[sizes[0]]) / log(100)
    return Finding(
        (
            Claim("exponent", exponent, at_most=0.10),
            Claim("S/B0 at the largest", ratio(turns, f"S, {largest:,} rows", f"B0, {largest:,} rows"), at_most=0.20),
            Claim("S/B1 at the largest", ratio(turns, f"S, {largest:,} rows", f"B1, {largest:,} rows")),
        ),
        turns,
        None,
        len(turns[f"S, {largest:,} rows"]),
        size,
        f"a table of files of {CHUNK:,} rows with keys that grow, the same for all subjects; of each file's rows half are "
        "new and half change one of the newest; one batch a query",
    )


def _table(folder: Path, rows: int) -> Path:
    """A table with so many orders, as micro-batches with growing keys leave it; made once."""
    path = folder / "pool" / f"table_{rows}"
    if not (path / "done").exists():
        shutil.rmtree(path, ignore_errors=True)
        for number, start in enumerate(range(0, rows, CHUNK)):
            write_deltalake(str(path), orders(consecutive(start, min(CHUNK, rows - start)), number), mode="append")
        say(f"made a table of {rows:,} rows in {tables.live_files(path)} files")
        (path / "done").touch()
    return path


def _batches(folder: Path, size: Size) -> Finding:
    batches, rows, keys = size["batches"], size["rows"], size["keys"]
    tenth = batches // 10
    pool = Pool(folder, f"updates_{keys}_{rows}")

    def files(first: int, count: int) -> list[Path]:
        return [pool.file(number, some_of(keys, rows, number)) for number in range(first, first + count)]

    with workers(folder / "batches", "S") as subjects:
        worker = subjects["S"]
        base = Pool(folder, f"base_{keys}").file(0, consecutive(0, keys))
        warmed = worker.home.with_name("warmed")
        worker.run(
            JOB, [base, *files(1, min(40, tenth))], warmed
        )  # a JVM that is still cold would flatter the last ones
        worker.run(JOB, [base])
        took: list[float] = []
        left: list[dict[str, float]] = []
        for part in range(10):
            found = worker.run(JOB, files(1 + part * tenth, tenth))
            took += [batch["seconds"] for batch in found["batches"]]
            left.append(_left(worker.home))
            say(f"{len(took)} batches: the last {tenth} took {median(took[-tenth:]):.3f} s each; {left[-1]}")
        content = tables.content(worker.home / "warehouse" / TABLE, ["order_id"], COLUMNS)
    same({"rows": content[0], "keys": keys})
    first, last = took[:tenth], took[-tenth:]
    half, end = left[4], left[9]
    bookkeeping = ("log bytes", "checkpoint bytes", "ledger files")
    turns = {
        name: [Sample(seconds, counts=left[at]) for seconds in part]
        for name, part, at in (("the first", first, 0), ("the last", last, 9))
    }
    return Finding(
        (
            Claim("last tenth/first", ratio(turns, "the last", "the first"), at_most=1.10),
            Claim("live files of the table", end["live files"], at_most=2 * left[0]["live files"]),
            *(Claim(f"{name}, all/half", end[name] / max(1, half[name]), at_most=1.25) for name in bookkeeping),
        ),
        turns,
        None,
        1,
        size,
        f"{batches:,} MERGEs of {rows:,} rows into {keys:,}, in ten runs of one process, after as many as warm it; "
        "all/half is 1 for what is bounded and 2 for what grows with each batch",
    )


def _left(home: Path) -> dict[str, float]:
    table = home / "warehouse" / TABLE
    ledger = home / "warehouse" / "ops" / "batches"
    return {
        "live files": tables.live_files(table),
        "files": tables.size(table)[0],
        "bytes": tables.size(table)[1],
        "log bytes": tables.size(table / "_delta_log")[1],
        "checkpoint bytes": tables.size(home / "checkpoints")[1],
        "ledger files": tables.live_files(ledger),
    }


MERGE = Goal(
    "merge_growth",
    "MERGE of 10,000 rows with recent keys into 1e5, 1e6, 1e7 rows: exponent at most 0.10; at 1e7 at most 0.20 of B0",
    _merge,
    full={"rows": 10_000, "largest": 10_000_000, "rounds": 5},
    smoke={"rows": 1_000, "largest": 200_000, "rounds": 2},
)
BATCHES = Goal(
    "micro_batches",
    "1,000 micro-batches: the last hundred at most 1.10 of the first; files, log and checkpoint bytes bounded",
    _batches,
    full={"batches": 1_000, "rows": 1_000, "keys": 100_000},
    smoke={"batches": 20, "rows": 100, "keys": 1_000},
)
