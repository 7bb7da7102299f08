"""A warm micro-batch, appended or merged, against the same by hand; and one that was committed, run again."""

from __future__ import annotations

from pathlib import Path

from benchmarks import tables
from benchmarks.goals.goal import Goal, Size
from benchmarks.orders import COLUMNS, Pool, consecutive, some_of
from benchmarks.orders_by_hand import TABLES
from benchmarks.timing import Claim, Finding, Sample, counts, interleave, ratio, same, say
from benchmarks.workers import Worker, of_batches, workers

KEYS = 5_000  # rows of the table that is merged into


def _append(folder: Path, size: Size) -> Finding:
    return _warm("append_orders", folder, size)


def _merge(folder: Path, size: Size) -> Finding:
    return _warm("merge_orders", folder, size)


def _warm(job: str, folder: Path, size: Size) -> Finding:
    rows, batches, bad = size["rows"], size["batches"], size["bad"]
    pool = Pool(folder, f"{job}_{rows}_{bad}")
    merges = job == "merge_orders"

    def files(first: int) -> list[Path]:
        numbers = range(first, first + batches + 1)
        if merges:
            return [pool.file(number, some_of(KEYS, min(rows, KEYS), number), bad) for number in numbers]
        return [pool.file(number, consecutive(number * rows, rows), bad) for number in numbers]

    base = Pool(folder, f"base_{KEYS}").file(0, consecutive(0, KEYS))
    with workers(folder / job, "S", "B0", "B1", "B1 again") as subjects:
        if merges:
            for worker in subjects.values():
                worker.run(job, [base])

        def turn(worker: Worker, number: int) -> Sample:
            return of_batches(worker.run(job, files(1 + number * (batches + 1))))

        turns = interleave(
            {name: lambda number, worker=worker: turn(worker, number) for name, worker in subjects.items()},
            size["rounds"],
            prepare=lambda number: files(1 + number * (batches + 1)),
        )
        left = {name: _left(job, worker.home) for name, worker in subjects.items()}
    same({name: what[:3] for name, what in left.items()})
    for name, (_, _, _, version, files_made) in left.items():
        say(f"{name}: {version} versions, {files_made} files made in the table's folder")
    jobs = {name: counts(samples)["Spark jobs"] for name, samples in turns.items()}
    return Finding(
        (
            Claim("S/B1", ratio(turns, "S", "B1"), at_most=0.85),
            Claim("extra Spark jobs", jobs["S"] - jobs["B1"], at_most=0),
            Claim("S/B0", ratio(turns, "S", "B0"), at_most=0.15),
            Claim("versions more than B1", left["S"][3] - left["B1"][3]),
            Claim("files more than B1", left["S"][4] - left["B1"][4]),
        ),
        turns,
        ratio(turns, "B1 again", "B1"),
        len(turns["S"]),
        size,
        f"JSON lines, one file a batch; the median of {batches} batches after the first of each query",
    )


def _left(job: str, home: Path) -> tuple[int, str, int, int, int]:
    table = home / "warehouse" / TABLES[job]
    made = sum(1 for _ in table.rglob("*.parquet"))
    return (
        *tables.content(table, ["order_id"], COLUMNS),
        tables.letters(home / "warehouse"),
        tables.version(table),
        made,
    )


def _replay(folder: Path, size: Size) -> Finding:
    job, rows = "append_orders", size["rows"]
    pool = Pool(folder, f"{job}_{rows}_0")
    with workers(folder / "replay", "S") as subjects:
        worker = subjects["S"]
        kept = [worker.home / "warehouse" / name for name in ("bronze/orders", "ops/batches", "ops/expectations")]

        def batch(number: int) -> Sample:
            return of_batches(worker.run(job, [pool.file(number, consecutive(number * rows, rows))]))

        def again(_: int) -> Sample:
            before = [(tables.version(table), tables.live_files(table)) for table in kept]
            commits = worker.home / "checkpoints" / job / "keep" / "commits"
            newest = max((file for file in commits.iterdir() if file.name.isdigit()), key=lambda file: int(file.name))
            newest.unlink()
            sample = of_batches(worker.run(job))
            same({"before": before, "after": [(tables.version(table), tables.live_files(table)) for table in kept]})
            return sample

        turns: dict[str, list[Sample]] = {"the batch": [], "the replay": []}
        for number in range(size["rounds"]):
            first, second = batch(number), again(number)
            say(f"round {number + 1}: {first.wall:.3f} s, again {second.wall:.3f} s, {second.parts}")
            if number:
                turns["the batch"].append(first)
                turns["the replay"].append(second)
    jobs = counts(turns["the replay"])["Spark jobs"]
    return Finding(
        (
            Claim("replay/batch", ratio(turns, "the replay", "the batch"), at_most=0.10),
            Claim("Spark jobs of the replay", jobs),
        ),
        turns,
        None,
        len(turns["the batch"]),
        size,
        "Spark's own commit of the batch is removed, as a kill after the table's commit leaves it; both are the first "
        "batch of a query; versions and files of the table, the ledger and the results were the same after it",
    )


APPEND = Goal(
    "warm_append",
    "warm micro-batch of 1,000 rows, append: S/B1 at most 0.85, no extra Spark job; S/B0 at most 0.15",
    _append,
    full={"rows": 1_000, "batches": 4, "rounds": 9, "bad": 0},
    fast={"rows": 1_000, "batches": 3, "rounds": 4, "bad": 0},
    smoke={"rows": 1_000, "batches": 2, "rounds": 2, "bad": 0},
)
MERGE = Goal(
    "warm_merge",
    "warm micro-batch of 1,000 rows, MERGE into 5,000: S/B1 at most 0.85, no extra Spark job; S/B0 at most 0.15",
    _merge,
    full={"rows": 1_000, "batches": 4, "rounds": 9, "bad": 0},
    fast={"rows": 1_000, "batches": 3, "rounds": 4, "bad": 0},
    smoke={"rows": 1_000, "batches": 2, "rounds": 2, "bad": 0},
)
REPLAY = Goal(
    "replay",
    "replay of a batch that was committed: at most 0.10 of the batch, no row and no version changed",
    _replay,
    full={"rows": 1_000, "rounds": 9},
    fast={"rows": 1_000, "rounds": 6},
    smoke={"rows": 1_000, "rounds": 3},
)
