"""What a goal is: a name, a sentence, a benchmark and its sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.timing import Finding

Size = Mapping[str, int]


@dataclass(frozen=True)
class Goal:
    """One goal.

    Attributes:
        asks: what is asked for, in a sentence.
        measure: the benchmark; it is given a folder, which it may keep data in, and its sizes.
        full, fast, smoke: its sizes in full, for every day (None: left out), and for a look at whether it works at all.
    """

    name: str
    asks: str
    measure: Callable[[Path, Size], Finding]
    full: Size
    smoke: Size
    fast: Size | None = None
