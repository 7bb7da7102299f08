"""The benchmarks of all goals: `python -m benchmarks` measures them one after the other.

python -m benchmarks --list
python -m benchmarks --goal warm_append --rounds 9
python -m benchmarks --goal merge_growth --set largest=1000000 --keep
python -m benchmarks --size fast
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.goals import GOALS
from benchmarks.goals.goal import Goal
from benchmarks.report import keep, result, table, told
from benchmarks.timing import NotTheSame, say


def main() -> int:
    """Measure what is asked for; 0 where everything could be measured, whether its goal is met or not."""
    given = _parser().parse_args()
    if given.list:
        for name, goal in GOALS.items():
            sizes = ", ".join(f"{key}={value}" for key, value in goal.full.items())
            print(f"{name:15} {goal.asks} [{sizes}]{'' if goal.fast is None else ' fast'}")
        return 0
    chosen = given.goal or [name for name in GOALS if _sizes(GOALS[name], given.size) is not None]
    folder = given.folder.resolve()  # subjects have working directories of their own
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    failed = []
    for name in chosen:
        size = {**(_sizes(GOALS[name], given.size) or GOALS[name].full), **dict(given.set)}
        size |= {"rounds": given.rounds} if given.rounds else {}
        started = time.monotonic()
        say(f"{name}: {GOALS[name].asks} {size}")
        try:
            found[name] = result(GOALS[name].measure(folder, size), given.size)
        except (NotTheSame, RuntimeError, OSError) as cause:  # the other goals can be measured none the less
            failed.append(name)
            say(f"{name}: not measured: {cause}")
            continue
        say(f"{told(name, found[name])}\n{name}: measured in {time.monotonic() - started:.0f} s")
        if given.keep:
            keep({name: found[name]})
    if given.json:
        print(json.dumps(found, indent=1))
    else:
        print("\n".join(line for line in table(found) if "not measured yet" not in line))
    return int(bool(failed))


def _sizes(goal: Goal, size: str) -> Any:
    return {"full": goal.full, "fast": goal.fast, "smoke": goal.smoke}[size]


def _setting(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    return name, int(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="list the goals with their sizes")
    parser.add_argument("--goal", action="append", choices=list(GOALS), help="only this one; may be given again")
    parser.add_argument("--size", choices=("full", "fast", "smoke"), default="full", help="fast: those of every day")
    parser.add_argument("--rounds", type=int, help="how many rounds")
    parser.add_argument(
        "--set", action="append", type=_setting, default=[], metavar="NAME=NUMBER", help="one of its sizes"
    )
    parser.add_argument("--keep", action="store_true", help="write benchmarks/results.json and benchmarks/README.md")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--folder", type=Path, default=Path("data/bench"), help="where data and tables lie meanwhile")
    return parser


if __name__ == "__main__":
    sys.exit(main())
