"""Ten million rows: a backlog against one bulk batch, and files to a merged table against DuckDB with delta-rs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import tables
from benchmarks.commands import Done, by_hand, command, microbatch
from benchmarks.goals.goal import Goal, Size
from benchmarks.orders import COLUMNS, Pool, consecutive, land, some_of
from benchmarks.timing import Claim, Finding, Sample, interleave, ratio, same, wall

FILE = 100_000  # rows of a file of the backlog; ten files are a batch (conf/backlog)
OLDER = 5  # every so many-th row of a file of columns is a newer version of an older order


def _backlog(folder: Path, size: Size) -> Finding:
    own, pool = folder / "backlog", Pool(folder, f"lines_{FILE}")
    many = [pool.file(number, consecutive(number * FILE, FILE)) for number in range(size["rows"] // FILE)]
    few = many[: max(10, len(many) // 10)]

    def turn(name: str, files: Sequence[Path], run: Callable[[Path], Done]) -> Sample:
        home = own / name
        shutil.rmtree(home, ignore_errors=True)
        land(files, home / "landing" / "append_orders")
        done = run(home)
        table = home / "warehouse" / "bronze" / "orders"
        counted = {"peak MiB": done.peak_mib, "versions": tables.version(table) + 1, "files": tables.live_files(table)}
        return Sample(done.wall, done.cpu, counted)

    def engine(home: Path) -> Done:
        return microbatch("run", "append_orders", home=home, env="backlog", watch=True)

    def bulk(home: Path) -> Done:
        return by_hand("append_orders", "--tuned", "--bulk", home=home, watch=True)

    turns = interleave(
        {
            "S": lambda _: turn("S", many, engine),
            "bulk": lambda _: turn("bulk", many, bulk),
            "S, a tenth": lambda _: turn("S_tenth", few, engine),
        },
        size["rounds"],
        drop=0,
    )
    same(
        {name: tables.content(own / name / "warehouse/bronze/orders", ["order_id"], COLUMNS) for name in ("S", "bulk")}
    )
    peaks = {name: min(sample.counts["peak MiB"] for sample in samples) for name, samples in turns.items()}
    return Finding(
        (
            Claim("S/bulk", ratio(turns, "S", "bulk"), at_most=1.10),
            Claim("peak memory, all/a tenth", peaks["S"] / peaks["S, a tenth"], at_most=1.10),
            Claim("peak memory, S/bulk", peaks["S"] / peaks["bulk"]),
        ),
        turns,
        None,
        len(turns["S"]),
        size,
        f"JSON lines in files of {FILE:,} rows, ten files a batch, appended; the bulk job is the same by hand with our "
        "settings, in one batch that is no stream; whole commands, memory of the process tree",
    )


def _duckdb(folder: Path, size: Size) -> Finding:
    own, pool, per_file = folder / "duckdb", Pool(folder, f"columns_{size['rows']}", "parquet"), size["rows"] // 20
    files = [pool.file(number, _keys(number, per_file)) for number in range(20)]

    def turn(name: str, run: Callable[[Path], Done]) -> Sample:
        home = own / name
        shutil.rmtree(home, ignore_errors=True)
        land(files, home / "landing" / "merge_columns")
        done = run(home)
        return Sample(done.wall, done.cpu, {"peak MiB": done.peak_mib})

    def opponent(home: Path) -> Done:
        return command([sys.executable, "-m", "benchmarks.orders_by_duckdb", "--home", str(home)], watch=True)

    subjects = {
        "S": lambda _: turn("S", lambda home: microbatch("run", "merge_columns", home=home, watch=True)),
        "DuckDB": lambda _: turn("DuckDB", opponent),
    }
    turns = interleave(subjects, size["rounds"], drop=0)
    table = "warehouse/silver/columns"
    same({name: tables.content(own / name / table, ["order_id"], COLUMNS) for name in subjects})
    return Finding(
        (
            Claim("S/DuckDB", ratio(turns, "S", "DuckDB"), at_most=1.5),
            Claim("S", wall(turns["S"]), unit="s"),
            Claim("DuckDB", wall(turns["DuckDB"]), unit="s"),
        ),
        turns,
        None,
        len(turns["S"]),
        size,
        "20 parquet files, one row in five a newer version of an order of an earlier file; rules, quarantine, the newest "
        "version of each key, one keyed commit; whole commands, both in one batch",
    )


def _keys(number: int, count: int) -> object:
    import numpy as np

    older = count // OLDER if number else 0
    fresh = consecutive(number * count, count - older)
    return np.concatenate([fresh, some_of(number * count, older, number)]) if older else fresh


BACKLOG = Goal(
    "backlog",
    "backlog of 1e7 rows: at most 1.10 of one bulk batch; peak memory at most 1.10 of that at 1e6",
    _backlog,
    full={"rows": 10_000_000, "rounds": 2},
    smoke={"rows": 2_000_000, "rounds": 1},
)
DUCKDB = Goal(
    "files_to_table",
    "1e7 rows, files to merged table: at most 1.5 of DuckDB + delta-rs doing the same",
    _duckdb,
    full={"rows": 10_000_000, "rounds": 3},
    smoke={"rows": 1_000_000, "rounds": 1},
)
