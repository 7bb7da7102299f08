"""Who watches a run: a progress bar on a terminal, plain lines elsewhere. Watching costs no Spark job."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
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
    """A progress bar for each flow: batches, rows, and the time left where it can be known. Flows may go side by side."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._flows: list[tuple[str, str]] = []
        self._under_way: dict[tuple[str, str], _Flow] = {}

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
        place = f"{self._flows.index((job, flow)) + 1}/{len(self._flows)} {flow}"
        if self._progress is not None:
            task = self._progress.add_task(place, total=pending, done=f"{pending:,} pending")
            self._under_way[job, flow] = _Flow(task, pending)

    def batch_ends(self, outcome: Outcome, pending: int) -> None:
        flow = self._under_way.get((outcome.job, outcome.flow))
        if self._progress is not None and flow is not None:
            flow.rows, flow.batches, flow.total = (
                flow.rows + outcome.rows_read,
                flow.batches + 1,
                max(flow.total, pending),
            )
            done = f"{flow.rows:,} rows, {flow.batches} batch{'es' if flow.batches > 1 else ''}"
            self._progress.update(flow.task, total=flow.total, completed=flow.total - pending, done=done)

    def flow_ends(self, job: str, flow: str) -> None:
        ended = self._under_way.get((job, flow))
        if self._progress is not None and ended is not None:
            self._progress.update(ended.task, completed=ended.total)

    def ends(self, run_id: str) -> None:
        if self._progress is not None:
            self._progress.stop()


@dataclass
class _Flow:
    """How far a flow is, as its bar shows it."""

    task: TaskID
    total: int
    rows: int = 0
    batches: int = 0


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
