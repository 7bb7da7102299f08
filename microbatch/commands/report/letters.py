"""Dead letters for a page: how many for each reason, and a few of each as samples. Masked columns stay hidden."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from microbatch.checks.wording import columns_of, requirement
from microbatch.commands.quarantine import Letters, laid_out
from microbatch.config import LoadedJob, Suite
from microbatch.errors import redacted, shortened
from microbatch.outcome import HIDDEN

SAMPLES = 3  # of each reason
MOST_REASONS = 30  # shown; the rest is counted
LONGEST = 2_000  # characters of a sample: a page is no place for a file
_GROUP = ("flow", "kind", "reason['expectation']", "reason['column']", "reason['severity']")


@dataclass(frozen=True)
class Reason:
    """The letters of one reason, with the newest of them. `demand` is what the rule asks, in words."""

    flow: str
    kind: str
    rule: str
    column: str
    severity: str
    letters: int
    open: int
    samples: tuple[Sample, ...]
    demand: str = ""


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
    order = f"PARTITION BY {_names()} ORDER BY quarantined_at DESC, id"
    placed = f"SELECT *, row_number() OVER ({order}) AS place FROM (SELECT {_columns()}, * FROM ({{}}))"  # noqa: S608
    sampled = letters.query(_LETTER, around=f"SELECT * FROM ({placed}) WHERE place <= {SAMPLES}")  # noqa: S608
    samples: dict[tuple[Any, ...], list[Sample]] = {}
    for each in sorted(sampled, key=lambda row: row["place"]):
        key = tuple(each[f"g{number}"] for number in range(len(_GROUP)))
        samples.setdefault(key, []).append(_sample(suite, job, each))
    found = []
    for key, count, open_ in unnested:
        flow, kind, rule, column, severity = (str(part or "") for part in key)
        mine = tuple(samples.get(key, ()))
        found.append(
            Reason(flow, kind, rule, column, severity, count, open_, mine, _demand(job, flow, rule, column, mine))
        )
    return found[:MOST_REASONS], max(0, len(found) - MOST_REASONS)


def _demand(job: LoadedJob, flow: str, rule: str, column: str, samples: Sequence[Sample]) -> str:
    """What was asked of the row, as the suite's file says it today; else what its letters say."""
    file = job.expectations.get(flow)
    asked = [
        requirement(entry.type, entry.kwargs)
        for entry in (file.entries if file else ())
        if entry.type == rule and ",".join(columns_of(entry.kwargs)) == column
    ]
    said = {sample.message.partition(", found")[0] for sample in samples}
    if len(said) == 1:
        return said.pop()
    return asked[0] if len(asked) == 1 else f"{rule} {column}".strip()


_LETTER = "id, flow, kind, batch_id, quarantined_at, status, payload, unnest(reasons) AS reason"


def _columns() -> str:
    return ", ".join(f"{what} AS g{number}" for number, what in enumerate(_GROUP))


def _names() -> str:
    return ", ".join(f"g{number}" for number in range(len(_GROUP)))


def letters_by_reason(letters: Letters) -> list[tuple[tuple[Any, ...], int, int]]:
    """Flow, kind, rule, column and severity of a reason; its letters; those of them that are open. Most first."""
    counts = "count(*) AS n, sum(CASE WHEN status = 'open' THEN 1 ELSE 0 END) AS open"
    within = f"SELECT {_columns()}, status FROM ({{}})"  # noqa: S608
    around = f"SELECT {_names()}, {counts} FROM ({within}) GROUP BY {_names()} ORDER BY n DESC, {_names()}"  # noqa: S608
    counted = letters.query("flow, kind, status, unnest(reasons) AS reason", around=around)
    return [(tuple(each[f"g{number}"] for number in range(len(_GROUP))), each["n"], each["open"]) for each in counted]


def _sample(suite: Suite, job: LoadedJob, letter: Mapping[str, Any]) -> Sample:
    reason = letter["reason"]
    message = str(reason["message"] or reason["expectation"])
    if job.masks(*str(reason["column"] or "").split(",")):
        message = f"{message.partition(', found')[0]}, found {HIDDEN}" if ", found" in message else message
    return Sample(
        letter["id"],
        letter["batch_id"],
        letter["quarantined_at"].strftime("%Y-%m-%d %H:%M"),
        letter["status"],
        redacted(shortened(message, 500), suite.secrets),
        redacted(shortened(masked(letter["payload"], letter["kind"], job), LONGEST), suite.secrets),
    )


def masked(payload: str | None, kind: str, job: LoadedJob) -> str:
    """A payload for people, the values of some columns hidden; a text that is no row is hidden whole where any is.

    Letters are masked as they are written: this is for those from before a column was.
    """
    if not job.mask or kind in ("file", "batch"):
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
    if not job.masks(*row):
        return laid_out(payload)
    return json.dumps(
        {name: HIDDEN if job.masks(name) else value for name, value in row.items()}, indent=2, ensure_ascii=False
    )
