"""The core of all benchmarks: subjects that take turns, three currencies, ratios of medians, and when not to believe them.

Only ratios travel between machines. A ratio counts only where both subjects ended with the same rows, and where the same
subject measured twice gives the same time.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

ALIKE = (0.95, 1.05)  # A/A outside of it: the machine was not quiet, and no ratio is reported


class NotTheSame(Exception):
    """Two subjects ended with different tables: there is no ratio."""


@dataclass(frozen=True)
class Sample:
    """One turn of one subject.

    Attributes:
        wall: seconds.
        cpu: seconds of all processes of the subject; None where it cannot be told apart.
        counts: Spark jobs, files, versions: what has no noise.
        parts: where the seconds went, as far as that is known.
    """

    wall: float
    cpu: float | None = None
    counts: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)


Turns = dict[str, list[Sample]]


def interleave(
    subjects: Mapping[str, Callable[[int], Sample]],
    rounds: int,
    drop: int = 1,
    prepare: Callable[[int], object] | None = None,
) -> Turns:
    """Let the subjects take turns: each round in another order, and every second one in that of the last turned round.

    Args:
        drop: so many rounds, the first ones, do not count: they warm what is cold.
        prepare: called before each round, for what all subjects share.

    Returns:
        The samples that count, by subject.
    """
    names, turns = list(subjects), {name: [] for name in subjects}
    for number in range(rounds):
        if prepare is not None:
            prepare(number)
        # Not one after the other in a ring: who always comes behind the same one pays for what that left, 0.1 of a batch.
        order = random.Random(number // 2).sample(names, len(names))
        for name in reversed(order) if number % 2 else order:
            sample = subjects[name](number)
            say(
                f"round {number + 1} of {rounds}: {name}: {sample.wall:.3f} s {_told({**sample.counts, **sample.parts})}"
            )
            if number >= min(drop, rounds - 1):
                turns[name].append(sample)
    return turns


def wall(turns: Sequence[Sample]) -> float:
    """The median of the seconds."""
    return median(sample.wall for sample in turns)


def cpu(turns: Sequence[Sample]) -> float | None:
    """The median of the CPU-seconds."""
    found = [sample.cpu for sample in turns if sample.cpu is not None]
    return median(found) if found else None


def counts(turns: Sequence[Sample]) -> dict[str, float]:
    """The largest of each count: a count has no noise, so the largest is what a subject needs."""
    names = {name: None for sample in turns for name in sample.counts}
    return {name: max(sample.counts[name] for sample in turns if name in sample.counts) for name in names}


def parts(turns: Sequence[Sample]) -> dict[str, float]:
    """The median of each part."""
    names = {name: None for sample in turns for name in sample.parts}
    return {name: round(median(s.parts[name] for s in turns if name in s.parts), 4) for name in names}


@dataclass(frozen=True)
class Claim:
    """One number that a goal is about."""

    what: str
    value: float
    at_most: float | None = None
    at_least: float | None = None
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return self.value >= self.at_least if self.at_least is not None else None


@dataclass(frozen=True)
class Finding:
    """What a benchmark found.

    Attributes:
        claims: the numbers the goal is about, then others that explain them.
        twice: A/A: the same subject measured twice in the same rounds; None where that would take too long.
        rounds: those that count.
        settings: the sizes it ran with.
        note: a sentence on what was done, for the reader of the table.
    """

    claims: tuple[Claim, ...]
    turns: Turns
    twice: float | None
    rounds: int
    settings: Mapping[str, Any]
    note: str = ""

    @property
    def believed(self) -> bool:
        """Whether ratios may be reported."""
        return self.twice is None or ALIKE[0] <= self.twice <= ALIKE[1]

    @property
    def met(self) -> bool:
        """Whether all that the goal asks for holds."""
        return all(claim.met is not False for claim in self.claims)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        subjects = {
            name: {
                "wall_s": round(wall(turns), 4),
                "cpu_s": _rounded(cpu(turns)),
                "counts": counts(turns),
                "parts_s": parts(turns),
            }
            for name, turns in self.turns.items()
            if turns
        }
        claims = [
            {key: _rounded(value) for key, value in vars(claim).items() if value not in (None, "")} | {"met": claim.met}
            for claim in self.claims
        ]
        return {
            "claims": claims,
            "subjects": subjects,
            "a_a": _rounded(self.twice),
            "believed": self.believed,
            "met": self.met,
            "rounds": self.rounds,
            "settings": dict(self.settings),
            "note": self.note,
        }


def ratio(turns: Turns, one: str, other: str) -> float:
    """How long the one takes, against the other."""
    return wall(turns[one]) / wall(turns[other])


def same(tables: Mapping[str, Any]) -> None:
    """Hold what the subjects ended with against each other.

    Raises:
        NotTheSame: naming two that differ.
    """
    (first, content), *others = tables.items()
    for name, other in others:
        if other != content:
            raise NotTheSame(f"{name} ended with {other}, {first} with {content}")


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def _told(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
