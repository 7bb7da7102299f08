"""What grows with the data, by counting: `python -m benchmarks.scale`, some minutes. `scale.md` reads it.

`daily_sales` over more and more days of Complete Journey, the same files a batch; then the last day once more, on top of them.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import tables
from benchmarks.commands import ROOT, command
from benchmarks.goals.cluster import without_task
from benchmarks.goals.journey import ROOMS, landed

DAYS = (31, 93, 365)
FOLDER = ROOT / "data" / "bench" / "scale"
SHOWN = ("silver/sales", "gold/daily_sales", "ops/batches", "ops/expectations", "ops/quarantine")


def main(days: Sequence[int] = DAYS) -> int:
    """Run, count and print a Markdown table: one column a number of days, and one for a day more."""
    columns: dict[str, dict[str, str]] = {}
    for count in days:
        home = _suite(count - 1)
        columns[f"{count - 1} days"] = _run(home)
        _land(home, count)
        columns[f"day {count} on top"] = _run(home)
    print("| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for row in next(iter(columns.values())):
        print(f"| {row} | " + " | ".join(column[row] for column in columns.values()) + " |")
    return 0


def _suite(days: int) -> Path:
    home = FOLDER / "suite"
    shutil.rmtree(home, ignore_errors=True)
    for room in ROOMS:
        shutil.copytree(ROOT / room, home / room, ignore=shutil.ignore_patterns("__pycache__"))
    with (home / "conf" / "local" / "spark.conf").open("a") as conf:
        conf.write(f"\nspark.eventLog.enabled true\nspark.eventLog.compress false\nspark.eventLog.dir {home}/events\n")
    _land(home, days)
    return home


def _land(home: Path, days: int) -> None:
    shutil.copytree(landed(FOLDER, days), home / "data" / "landing", dirs_exist_ok=True)


def _run(home: Path) -> dict[str, str]:
    events = home / "events"
    shutil.rmtree(events, ignore_errors=True)
    events.mkdir()
    words = [sys.executable, "-m", "microbatch", "run", "daily_sales", "--suite", str(home)]
    done = command(words, watch=True)
    idle, tasks = without_task(events)
    told = list(_events(events))
    warehouse = home / "data" / "warehouse"
    there = [warehouse / name for name in SHOWN]
    return {
        "seconds, the whole command": f"{done.wall:.1f}",
        "peak memory [MiB]": f"{done.peak_mib:,.0f}",
        "batches": str(sum(each["Event"].endswith("QueryProgressEvent") for each in told)),
        "Spark jobs": str(sum(each["Event"] == "SparkListenerJobStart" for each in told)),
        "tasks": f"{tasks:,}",
        "share of the time between the first and the last task in which none ran": f"{idle:.0%}",
        **{f"{path.parent.name}.{path.name}: files": str(tables.live_files(path)) for path in there},
        "bytes of all tables": f"{tables.size(warehouse)[1]:,}",
        "of these in `_delta_log`": f"{sum(tables.size(log)[1] for log in warehouse.glob('*/*/_delta_log')):,}",
        "bytes of checkpoints": f"{tables.size(home / 'data' / 'checkpoints')[1]:,}",
    }


def _events(folder: Path) -> Iterator[dict[str, str]]:
    for file in folder.rglob("*"):
        if file.is_file() and not file.name.startswith((".", "appstatus")):
            yield from (json.loads(line) for line in file.read_text().splitlines())


if __name__ == "__main__":
    sys.exit(main([int(word) for word in sys.argv[1:]] or DAYS))
