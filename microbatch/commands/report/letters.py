"""Dead letters for a page: how many for each reason, and a few of each as samples. Masked columns stay hidden."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from microbatch.commands.quarantine import Letters, laid_out
from microbatch.config import LoadedJob, Suite
from microbatch.errors import redacted, shortened
from microbatch.quarantine import HIDDEN
from microbatch.runner.flows import mask_of

SAMPLES = 3  # of each reason
MOST_REASONS = 30  # shown; the rest is counted
LONGEST = 2_000  # characters of a sample: a page is no place for a file
_GROUP = ("flow", "kind", "reason['expectation']", "reason['column']", "reason['severity']")


@dataclass(frozen=True)
class Reason:
    """The letters of one reason, with the newest of them."""

    flow: str
    kind: str
    rule: str
    column: str
    severity: str
    letters: int
    open: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Sample:
    """One letter as it is shown."""

    id: str
    batch_id: int
    at: str
    status: str
    message: str
    payload: str


def reasons(suite: Suite, job: LoadedJob) -> tuple[list[Reason], int]:
    """The reasons, most letters first, and how many more there are. One letter with two reasons counts in both."""
    letters = Letters(suite, job)
    unnested = letters_by_reason(letters)
    newest = f"SELECT *, row_number() OVER (PARTITION BY {_names()} ORDER BY quarantined_at DESC, id) AS place FROM (SELECT {_columns()}, * FROM ({{}}))"
    sampled = letters.query(_LETTER, around=f"SELECT * FROM ({newest}) WHERE place <= {SAMPLES}")  # noqa: S608
    samples: dict[tuple[Any, ...], list[Sample]] = {}
    for each in sorted(sampled, key=lambda row: row["place"]):
        key = tuple(each[f"g{number}"] for number in range(len(_GROUP)))
        samples.setdefault(key, []).append(_sample(suite, job, each))
    found = [
        Reason(*[str(part or "") for part in key], letters=count, open=open_, samples=tuple(samples.get(key, ())))
        for key, count, open_ in unnested
    ]
    return found[:MOST_REASONS], max(0, len(found) - MOST_REASONS)


_LETTER = "id, flow, kind, batch_id, quarantined_at, status, payload, unnest(reasons) AS reason"


def _columns() -> str:
    return ", ".join(f"{what} AS g{number}" for number, what in enumerate(_GROUP))


def _names() -> str:
    return ", ".join(f"g{number}" for number in range(len(_GROUP)))


def letters_by_reason(letters: Letters) -> list[tuple[tuple[Any, ...], int, int]]:
    """Flow, kind, rule, column and severity of a reason; its letters; those of them that are open. Most first."""
    counts = "count(*) AS n, sum(CASE WHEN status = 'open' THEN 1 ELSE 0 END) AS open"
    around = f"SELECT {_names()}, {counts} FROM (SELECT {_columns()}, status FROM ({{}})) GROUP BY {_names()} ORDER BY n DESC, {_names()}"  # noqa: S608
    counted = letters.query("flow, kind, status, unnest(reasons) AS reason", around=around)
    return [(tuple(each[f"g{number}"] for number in range(len(_GROUP))), each["n"], each["open"]) for each in counted]


def _sample(suite: Suite, job: LoadedJob, letter: Mapping[str, Any]) -> Sample:
    hidden = mask_of(job)
    reason = letter["reason"]
    message = str(reason["message"] or reason["expectation"])
    if set(str(reason["column"] or "").split(",")) & set(hidden):
        message = f"{message.partition(', found')[0]}, found {HIDDEN}" if ", found" in message else message
    return Sample(
        letter["id"],
        letter["batch_id"],
        letter["quarantined_at"].strftime("%Y-%m-%d %H:%M"),
        letter["status"],
        redacted(shortened(message, 500), suite.secrets),
        redacted(shortened(masked(letter["payload"], letter["kind"], hidden), LONGEST), suite.secrets),
    )


def masked(payload: str | None, kind: str, hidden: Sequence[str]) -> str:
    """A payload for people, the values of some columns hidden; a text that is no row is hidden whole where any is.

    Letters are masked as they are written: this is for those from before a column was.
    """
    if not hidden or kind in ("file", "batch"):
        return laid_out(payload)
    try:
        row = json.loads(payload or "")
    except ValueError:
        row = None
    if not isinstance(row, dict):
        return (
            f"{HIDDEN} ({len(payload or '')} characters)"
            if payload and not payload.startswith(HIDDEN)
            else payload or ""
        )
    if not set(hidden) & row.keys():
        return laid_out(payload)
    return json.dumps(
        {name: HIDDEN if name in hidden else value for name, value in row.items()}, indent=2, ensure_ascii=False
    )
