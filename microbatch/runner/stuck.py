"""A batch that failed after its retries: one letter says which, and the run that gets past it closes the letter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone

from microbatch import quarantine
from microbatch.errors import MicrobatchError, redacted
from microbatch.places import Place
from microbatch.quarantine import Origin
from microbatch.sources.record import Record
from microbatch.sources.tables import numbered, offsets


@dataclass(frozen=True)
class Stuck:
    """The batches of one flow in one run."""

    warehouse: str
    job: str
    flow: str
    run_id: str
    checkpoint: Place
    secrets: tuple[str, ...]

    def bury(self, error: MicrobatchError) -> None:
        """Write the letter of the batch under way, where the error is of that batch and it was planned at all."""
        planned = numbered(self.checkpoint / "offsets")
        done = numbered(self.checkpoint / "commits")
        if not error.of_the_batch or not planned or planned[-1] in done:
            return
        batch_id = planned[-1]
        query_id = json.loads((self.checkpoint / "metadata").read_text())["id"]
        now = datetime.now(timezone.utc).isoformat()
        origin = Origin(self.warehouse, self.job, self.flow, query_id, batch_id, self.run_id, now)
        told = redacted(str(error), self.secrets)
        payload = {
            "source_start": offsets(self.checkpoint, batch_id - 1),
            "source_end": offsets(self.checkpoint, batch_id),
            "files": sorted(Record(self.checkpoint).of(batch_id)),
            "error": told,
            "class": type(error.__cause__ or error).__name__,
        }
        quarantine.of_batch(origin, payload, told)

    def close(self, query_id: str, upto: int) -> None:
        """The batches up to this one are in their table: nothing about them is open any more."""
        quarantine.close_batches(self.warehouse, self.job, self.flow, query_id, upto)
