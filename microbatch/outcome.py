"""What happened to one micro-batch: the one frozen record that ledger, metrics, alerts and lineage all read.

An `Outcome` travels as JSON in the `userMetadata` of the target's commit, so that a batch that was written just before a
crash gets its true ledger row after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace

HIDDEN = "***"  # what stands where a masked value was


def masks(mask: Iterable[str], columns: Iterable[str]) -> bool:
    """Whether one of these columns is in the mask; names are told apart without their case, as Spark does it."""
    return not {name.lower() for name in mask}.isdisjoint(name.lower() for name in columns)


ONLY_THE_COMMIT_KNOWS = -1  # rows_written of an upsert, before its MERGE has said how many keys it changed


@dataclass(frozen=True)
class Result:
    """One expectation over one micro-batch.

    Attributes:
        expectation_id: unique in the flow: `<suite>/<position>` or the id the suite gives.
        expectation: its type, as Great Expectations names it.
        column: the columns it looks at, comma-joined; empty for a table-level one.
        severity: critical, warning or info.
        success: as Great Expectations' own validation says.
        evaluated: rows the rule looked at, as Great Expectations counts them (`element_count`); None for a table-level one.
        unexpected: rows that broke it; None for a table-level one.
        observed: the observed value of a table-level one, as text; None for a row rule.
    """

    expectation_id: str
    expectation: str
    column: str
    severity: str
    success: bool
    evaluated: int | None
    unexpected: int | None
    observed: str | None


@dataclass(frozen=True)
class Outcome:
    """A micro-batch that is done. Counts are rows; times are ISO 8601 in UTC; `newest_at` is the newest event or file time.

    The law: rows_transformed = rows_written + rows_quarantined + rows_superseded, and for a row-for-row flow
    rows_read = rows_unparsed + rows_transformed. `letters` are the ids of the dead letters that a replay took in.
    """

    job: str
    flow: str
    run_id: str
    query_id: str
    batch_id: int
    started_at: str
    duration_ms: int
    source_start: str
    source_end: str
    rows_read: int
    rows_unparsed: int
    rows_transformed: int
    rows_written: int
    rows_quarantined: int
    rows_superseded: int
    rows_inserted: int
    rows_updated: int
    rows_deleted: int
    target_version: int | None
    newest_at: str | None
    suite_version: str
    results: tuple[Result, ...] = ()
    letters: tuple[str, ...] = ()

    def lawful(self) -> bool:
        """Whether every transformed row is in the table, in quarantine or superseded."""
        return self.rows_transformed == self.rows_written + self.rows_quarantined + self.rows_superseded

    def plus(self, later: Outcome) -> Outcome:
        """The counts of both, for a sum over many batches; all else is the later one's, without results and letters."""
        names = [
            field.name for field in fields(Outcome) if field.name.startswith("rows_") or field.name == "duration_ms"
        ]
        sums = {name: getattr(self, name) + getattr(later, name) for name in names}
        return replace(later, **sums, results=(), letters=())

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Outcome:
        """The outcome a commit carries.

        Raises:
            ValueError: the text is not an outcome (the commit is not the engine's).
        """
        try:
            record = json.loads(text)
            record["results"] = tuple(Result(**result) for result in record["results"])
            record["letters"] = tuple(record.get("letters", ()))
            known = {field.name for field in fields(Outcome)}
            return Outcome(**{name: value for name, value in record.items() if name in known})
        except (TypeError, KeyError) as cause:
            raise ValueError(f"not an outcome: {cause}") from cause
