"""A cron expression, taken apart: the same times for schedulers that write them differently.

Source:
    crontab(5): where both the day of the month and the day of the week are restricted, either of them is enough. croniter, which
    says what conf means, takes `*/2` for restricted; Vixie cron takes what begins with `*` for all days, and wants both.
    systemd.time(7), "Calendar events": there all parts must match, and a timer may have several expressions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise

from microbatch.config import LoadedJob, Schedule
from microbatch.errors import ConfigError, Problem

_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_WEEK = (1, 2, 3, 4, 5, 6, 0)  # systemd's week begins on Monday
_RANGES = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 6)}
_ELSEWHERE = re.compile(r"(?:(?P<all>\*)|(?P<first>\d+)-(?P<last>\d+))(?:/(?P<step>\d+))?|(?P<one>\d+)")
_NAMES = re.compile(r"JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC|SUN|MON|TUE|WED|THU|FRI|SAT", re.IGNORECASE)
# croniter's own: last, random and nth days, and the nearest that is worked on.
_OWN = re.compile(r"[LRW#]", re.IGNORECASE)
_LOOKED_AT = 400  # times; more than a year of days


@dataclass(frozen=True)
class Times:
    """When a job runs: each part is the values that match, None for all of them.

    Attributes:
        weekday: 0 is Sunday.
        shortest_gap_s: between the two closest times.
    """

    cron: str
    zone: str
    shortest_gap_s: int
    minute: tuple[int, ...] | None
    hour: tuple[int, ...] | None
    day: tuple[int, ...] | None
    month: tuple[int, ...] | None
    weekday: tuple[int, ...] | None

    @property
    def portable(self) -> str:
        """Five fields of digits that cron and Kubernetes read alike. Listed are names, Sunday as 7, ranges around the end, starts
        without an end (`5/15`), and days with `*` and a step, beside which Vixie cron would want the other field too.
        """
        texts = zip(_RANGES, self.cron.split(), strict=True)
        return " ".join(_field(of, text, getattr(self, of)) for of, text in texts)

    @property
    def calendar(self) -> list[str]:
        """The OnCalendar= expressions of a systemd timer; any of them starts it."""
        clock = f"{_part(self.hour, 'hour')}:{_part(self.minute, 'minute')}:00 {self.zone}"
        month, weekday = _part(self.month, "month"), _weekdays(self.weekday)
        if self.day is None or self.weekday is None:
            return [f"{weekday}*-{month}-{_part(self.day, 'day')} {clock}"]
        return [f"*-{month}-{_part(self.day, 'day')} {clock}", f"{weekday}*-{month}-* {clock}"]


def times(job: LoadedJob) -> tuple[Times, Schedule]:
    """When a scheduled job runs, beside what its conf says.

    Raises:
        ConfigError: it has no schedule, or one that only croniter understands.
    """
    where = f"conf/base/{job.name}.yml"
    if job.conf.schedule is None:
        raise ConfigError(Problem(where, 'has no schedule; write one, such as schedule: {cron: "0 2 * * *"}'))
    schedule = job.conf.schedule
    if _OWN.search(_NAMES.sub("", schedule.cron)):
        what = f'schedule.cron: "{schedule.cron}" has L, #, W or R, which no other scheduler reads; list the days'
        raise ConfigError(Problem(where, what))
    from croniter import croniter

    parts = [None if "*" in values else tuple(sorted(values)) for values in croniter.expand(schedule.cron)[0]]
    return Times(" ".join(schedule.cron.split()), schedule.timezone, _shortest_gap_s(schedule), *parts), schedule


def _shortest_gap_s(schedule: Schedule) -> int:
    """The seconds between the two closest times."""
    from croniter import croniter

    starts = croniter(schedule.cron, datetime(2024, 1, 1, tzinfo=timezone.utc))
    stamps = [starts.get_next(float) for _ in range(_LOOKED_AT)]
    return int(min(later - earlier for earlier, later in pairwise(stamps)))


def _field(of: str, text: str, values: Sequence[int] | None) -> str:
    """A field as it is written where every reader takes it for these values, else the values."""
    if values is None:
        return "*"
    kept = _elsewhere(text, *_RANGES[of]) == {*values} and not ("*" in text and of in ("day", "weekday"))
    return text if kept else ",".join(map(str, values))


def _elsewhere(text: str, lowest: int, highest: int) -> set[int] | None:
    """The values of a field as any cron reads it; None where one may not."""
    values: set[int] = set()
    for each in text.split(","):
        found = _ELSEWHERE.fullmatch(each)
        if found is None:
            return None
        if found["one"]:
            values.add(int(found["one"]))
        else:
            first, last = (lowest, highest) if found["all"] else (int(found["first"]), int(found["last"]))
            values |= set(range(first, last + 1, int(found["step"] or 1)))
    return values


def _part(values: Sequence[int] | None, of: str) -> str:
    """A part of a calendar expression: `*`, `00/15`, `09..17` or a list of both."""
    if values is None:
        return "*"
    steps = {later - earlier for earlier, later in pairwise(values)}
    if len(values) > 2 and len(steps) == 1 and (step := steps.pop()) > 1 and values[-1] + step > _RANGES[of][1]:
        return f"{values[0]:02}/{step}"
    return ",".join(_runs([f"{value:02}" for value in values], [b - a == 1 for a, b in pairwise(values)]))


def _weekdays(values: Sequence[int] | None) -> str:
    if values is None:
        return ""
    at = [position for position, day in enumerate(_WEEK) if day in values]
    names = [_DAYS[_WEEK[position]] for position in at]
    return ",".join(_runs(names, [b - a == 1 for a, b in pairwise(at)])) + " "


def _runs(words: Sequence[str], follows: Sequence[bool]) -> list[str]:
    """Three or more neighbours as `first..last`; `follows` says of each word but the first whether it is a neighbour."""
    runs: list[list[str]] = [[words[0]]]
    for word, close in zip(words[1:], follows, strict=True):
        if close:
            runs[-1].append(word)
        else:
            runs.append([word])
    return [text for run in runs for text in ([f"{run[0]}..{run[-1]}"] if len(run) > 2 else run)]
