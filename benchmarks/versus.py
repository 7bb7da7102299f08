"""This suite against the same job by hand, interleaved in one run: `python -m benchmarks.versus --landing DIR`.

Only ratios travel between machines. A ratio counts only where both end with the same tables, so that is compared first.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

import pyarrow as pa
from deltalake import DeltaTable

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("jobs", "transforms", "conf", "expectations")
TABLES = {
    "silver/sales": ["order_id", "product_id", "amount", "order_date", "department"],
    "gold/daily_sales": ["order_date", "store_id", "department", "orders", "lines", "units", "revenue"],
}
SUBJECTS = ("suite", "by hand, defaults", "by hand, tuned")


def main() -> None:
    parser = argparse.ArgumentParser(description="daily_sales against the same job by hand")
    parser.add_argument("--landing", type=Path, required=True)
    parser.add_argument("--days", type=int, default=93, help="days of order lines, the first ones (default: 93)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; with three or more the first is dropped")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=SUBJECTS)
    given = parser.parse_args()
    seconds: dict[str, list[float]] = {subject: [] for subject in given.subjects}
    with tempfile.TemporaryDirectory(prefix="versus-") as scratch:
        landing = Path(scratch, "landing")
        _take_days(given.landing, landing, given.days)
        for round_ in range(1, given.rounds + 1):
            contents = {}
            for subject in given.subjects:
                folder = Path(scratch, "subject")
                took, contents[subject] = _measure(subject, landing, folder)
                seconds[subject].append(took)
                shutil.rmtree(folder)
                print(f"round {round_}: {subject}: {took:.1f} s", file=sys.stderr)
            first = contents[given.subjects[0]]
            for subject, content in contents.items():
                if content != first:
                    sys.exit(f"no ratio: {subject} and {given.subjects[0]} ended with different tables")
    medians = {subject: median(took[1:] if len(took) > 2 else took) for subject, took in seconds.items()}
    versions = {name: version(name) for name in ("pyspark", "delta-spark", "great-expectations")}
    report: dict[str, object] = {
        "days": given.days,
        "rounds": given.rounds,
        "cpus": os.cpu_count(),
        "versions": versions,
    }
    report["seconds"] = {subject: round(took, 1) for subject, took in medians.items()}
    report["ratio of suite"] = {
        subject: round(medians["suite"] / took, 2)
        for subject, took in medians.items()
        if "suite" in medians and subject != "suite"
    }
    print(json.dumps(report, indent=2))


def _take_days(landed: Path, into: Path, days: int) -> None:
    for folder, count in (("order_lines", days), ("products", 1)):
        (into / folder).mkdir(parents=True)
        for file in sorted((landed / folder).glob("[!_.]*"))[:count]:
            shutil.copy2(file, into / folder)  # with its time: files are taken in by time of change


def _measure(subject: str, landing: Path, folder: Path) -> tuple[float, dict[str, pa.Table]]:
    """Run one subject in an empty folder.

    Returns:
        The seconds of the whole command, the start of its JVM included; its tables, sorted.
    """
    prepare: Callable[[Path, Path], list[str]] = _suite if subject == "suite" else _by_hand
    command = prepare(landing, folder) + (["--tuned"] if subject.endswith("tuned") else [])
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    took = time.monotonic() - started
    if done.returncode != 0:
        sys.exit(f"{subject} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    warehouse = (folder / "data" if subject == "suite" else folder) / "warehouse"
    return took, {table: _sorted(warehouse / table, columns) for table, columns in TABLES.items()}


def _suite(landing: Path, folder: Path) -> list[str]:
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(landing, folder / "data" / "landing")
    return [sys.executable, "-m", "microbatch", "run", "daily_sales", "--suite", str(folder)]


def _by_hand(landing: Path, folder: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.by_hand", "--landing", str(landing), "--out", str(folder)]


def _sorted(table: Path, columns: list[str]) -> pa.Table:
    content = DeltaTable(str(table)).to_pyarrow_table(columns=columns).replace_schema_metadata()
    return content.sort_by([(column, "ascending") for column in columns]).combine_chunks()


if __name__ == "__main__":
    main()
