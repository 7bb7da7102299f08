"""What travels through a batch: the flow it is of, its input held fast, and the rows once they are judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from microbatch import quarantine
from microbatch.job import Flow
from microbatch.outcome import Outcome, Result
from microbatch.places import Place
from microbatch.shape import Shape
from microbatch.sink.tables import Table
from microbatch.sources import Files, Stream, TableInput
from microbatch.sources.listing import File

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, Observation


@dataclass(frozen=True)
class Work:
    """All that a batch of one flow needs; made once a run.

    Attributes:
        committed: the last batch that was done when the run began (see `Standing`): up to it nothing is judged again.
        planned: the last batch that was planned when the run began: up to it letters of an earlier attempt may be there.
        mask: columns whose values letters hide.
        give_up: a batch whose rows somebody sends to quarantine as they are; -1 for none.
        letters: the letters whose rows this is a replay of.
        reached: told of each step as it is done ("keep", "judge", "letters", "deletes", "target", "ledger"), with the batch id.
    """

    warehouse: str
    job: str
    flow: Flow
    shape: Shape
    input: Files | TableInput | Stream
    checkpoint: Place
    query_id: str
    run_id: str
    suite_version: str
    committed: int
    planned: int
    properties: Mapping[str, str]
    reached: Callable[[str, int], None]
    mask: tuple[str, ...] = ()
    give_up: int = -1
    letters: tuple[str, ...] = ()
    now: Callable[[], datetime] = field(default=lambda: datetime.now(timezone.utc))

    @property
    def target(self) -> Table:
        return Table(self.warehouse, self.flow.writes.table)


@dataclass(frozen=True)
class Kept:
    """The input of a batch, held fast: offsets, files, rows, and for a recomputing flow the groups that changed."""

    batch_id: int
    started: datetime
    start: str
    end: str
    rows: DataFrame
    count: Observation | None
    files: tuple[File, ...] = ()
    broken: Mapping[str, str] = field(default_factory=dict)
    groups: DataFrame | None = None
    changes: int = 0
    newest_at: str | None = None


@dataclass(frozen=True)
class Judged:
    """A batch, pinned, with all that was counted while it was."""

    rows: DataFrame
    read: int
    unparsed: int
    transformed: int
    leaving: int
    deleting: int
    bounds: Mapping[str, tuple[Any, Any]]
    results: tuple[Result, ...]
    text_bytes: int = 0  # where nothing is written nobody counts it
    letter_bytes: int = 0


def outcome_of(work: Work, kept: Kept, judged: Judged, written: int) -> Outcome:
    """What is known before the commit; it travels in it."""
    return Outcome(
        job=work.job,
        flow=work.flow.name,
        run_id=work.run_id,
        query_id=work.query_id,
        batch_id=kept.batch_id,
        started_at=kept.started.isoformat(),
        duration_ms=int((work.now() - kept.started).total_seconds() * 1000),
        source_start=kept.start,
        source_end=kept.end,
        rows_read=judged.read,
        rows_unparsed=judged.unparsed,
        rows_transformed=judged.transformed,
        rows_written=written,
        rows_quarantined=judged.leaving,
        rows_superseded=0,
        rows_inserted=0,
        rows_updated=0,
        rows_deleted=0,
        target_version=None,
        newest_at=kept.newest_at,
        suite_version=work.suite_version,
        results=judged.results,
        letters=work.letters,
    )


def origin_of(work: Work, kept: Kept) -> quarantine.Origin:
    """The address of the batch's letters."""
    now = work.now().isoformat()
    return quarantine.Origin(work.warehouse, work.job, work.flow.name, work.query_id, kept.batch_id, work.run_id, now)


def file_letters(kept: Kept) -> pa.Table | None:
    """The letters of the files of a batch that could not be read."""
    return quarantine.of_files(kept.broken, {file.path: file.size for file in kept.files}) if kept.broken else None
