"""Who watches a run: a progress bar on a terminal, plain lines elsewhere. Watching costs no Spark job."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TextIO

from microbatch.outcome import Outcome

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


LOGGED = (
    *("job", "flow", "run_id", "batch_id", "started_at", "duration_ms"),
    *(
        "rows_read",
        "rows_unparsed",
        "rows_written",
        "rows_quarantined",
        "rows_superseded",
        "target_version",
        "newest_at",
    ),
)
"""What a log says of a batch: the ledger's own names."""


class Observer:
    """Watches, and says nothing. The others override what they tell."""

    def begins(self, flows: Sequence[tuple[str, str]]) -> None:
        """A run begins; the flows in their order, as (job, flow)."""

    def says(self, line: str) -> None:
        """Something a person may want to know: a wait, a retry."""

    def flow_begins(self, job: str, flow: str, pending: int) -> None:
        """A flow has something to do: `pending` files or table versions."""

    def batch_ends(self, outcome: Outcome, pending: int) -> None:
        """A batch is in its table; `pending` files or versions are left."""

    def flow_ends(self, job: str, flow: str) -> None:
        """A flow has taken in all that was there."""

    def ends(self, run_id: str) -> None:
        """The run is over."""


class Lines(Observer):
    """One plain line a batch, for logs."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr

    def says(self, line: str) -> None:
        print(line, file=self.stream, flush=True)

    def flow_begins(self, job: str, flow: str, pending: int) -> None:
        self.says(f"{job}.{flow}: {pending} pending")

    def batch_ends(self, outcome: Outcome, pending: int) -> None:
        self.says(describe(outcome))


class JsonLines(Lines):
    """One JSON object a line, for programs that read logs: `at`, `event`, and what the event has to say.

    Events: run_begins, flow_begins, batch, flow_ends, run_ends, message and error. Counts are rows, times UTC.
    """

    def begins(self, flows: Sequence[tuple[str, str]]) -> None:
        self._write("run_begins", flows=[f"{job}.{flow}" for job, flow in flows])

    def says(self, line: str) -> None:
        self._write("message", text=line)

    def flow_begins(self, job: str, flow: str, pending: int) -> None:
        self._write("flow_begins", job=job, flow=flow, pending=pending)

    def batch_ends(self, outcome: Outcome, pending: int) -> None:
        told = {name: getattr(outcome, name) for name in LOGGED}
        self._write("batch", **told, pending=pending)

    def flow_ends(self, job: str, flow: str) -> None:
        self._write("flow_ends", job=job, flow=flow)

    def ends(self, run_id: str) -> None:
        self._write("run_ends", run_id=run_id)

    def failed(self, line: str) -> None:
        """An error, in its one line."""
        self._write("error", text=line)

    def _write(self, event: str, **told: Any) -> None:
        at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        print(json.dumps({"at": at, "event": event, **told}, ensure_ascii=False), file=self.stream, flush=True)


class Bar(Observer):
    """A progress bar for each flow: batches, rows, and the time left where it can be known."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._total = self._rows = self._batches = 0
        self._flows: list[tuple[str, str]] = []
        self._since = time.monotonic()

    def begins(self, flows: Sequence[tuple[str, str]]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._flows = list(flows)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:<28}"),
            BarColumn(),
            TextColumn("{task.fields[done]}"),
        )
        self._progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
        self._progress.start()

    def says(self, line: str) -> None:
        if self._progress is not None:
            self._progress.console.print(line, highlight=False, markup=False)

    def flow_begins(self, job: str, flow: str, pending: int) -> None:
        self._total, self._rows, self._batches = pending, 0, 0
        place = f"{self._flows.index((job, flow)) + 1}/{len(self._flows)} {flow}"
        if self._progress is not None:
            self._task = self._progress.add_task(place, total=pending, done=f"{pending:,} pending")

    def batch_ends(self, outcome: Outcome, pending: int) -> None:
        self._rows, self._batches = self._rows + outcome.rows_read, self._batches + 1
        if self._progress is not None and self._task is not None:
            self._total = max(self._total, pending)
            done = f"{self._rows:,} rows, {self._batches} batch{'es' if self._batches > 1 else ''}"
            self._progress.update(self._task, total=self._total, completed=self._total - pending, done=done)

    def flow_ends(self, job: str, flow: str) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self._total)

    def ends(self, run_id: str) -> None:
        if self._progress is not None:
            self._progress.stop()


def describe(outcome: Outcome) -> str:
    """A batch in one line."""
    parts = [f"{outcome.rows_read:,} read", f"{outcome.rows_written:,} written"]
    for name, count in (
        ("quarantined", outcome.rows_quarantined + outcome.rows_unparsed),
        ("superseded", outcome.rows_superseded),
    ):
        parts += [f"{count:,} {name}"] if count else []
    return (
        f"{outcome.job}.{outcome.flow} batch {outcome.batch_id}: {', '.join(parts)}, {outcome.duration_ms / 1000:.1f} s"
    )
