"""Names: what they may be, and which one was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
NAME_RULE = "small letters, digits and _, a letter first, at most 63"
MOST_LISTED = 12


def is_name(word: object) -> bool:
    """Whether it can name a job, flow, source, schema or table."""
    return isinstance(word, str) and NAME.fullmatch(word) is not None


def nearest(word: object, known: Iterable[str]) -> str | None:
    """The known name that was probably meant; None where none is close."""
    names = {name.lower(): name for name in sorted(known, reverse=True)}
    close = difflib.get_close_matches(str(word).lower(), names, n=1, cutoff=0.55)
    return names[close[0]] if close else None


def hint(word: object, known: Iterable[str], *, listed: str = "there is") -> str:
    """How a sentence about an unknown name ends: with the nearest one, else with all of them, else with nothing."""
    names = sorted(set(known))
    if near := nearest(word, names):
        return f"; did you mean {near}?"
    if not names:
        return ""
    more = ", …" if len(names) > MOST_LISTED else ""
    return f"; {listed} {', '.join(names[:MOST_LISTED])}{more}"
