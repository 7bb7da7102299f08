"""What the world outside is told of a run: alerts and metrics. A fault in the telling is said, and never fails the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from microbatch.config import LoadedJob, Suite
from microbatch.errors import redacted, shortened
from microbatch.outcome import Outcome
from microbatch.runner import metrics
from microbatch.runner.alerts import Alerts
from microbatch.runner.figures import Figures

MOST_SAID = 300  # characters of a fault in the telling


class Watch:
    """Watches one run of some jobs.

    Args:
        says: tells a person at the terminal, or the log.
    """

    def __init__(self, suite: Suite, jobs: Sequence[str], run_id: str, says: Callable[[str], None]) -> None:
        self.suite, self.run_id, self.says = suite, run_id, says
        self._outcomes: dict[str, list[Outcome]] = {name: [] for name in jobs}
        self._alerts = {name: Alerts(suite, suite.job(name), run_id, says) for name in jobs}

    def batch_ends(self, outcome: Outcome) -> None:
        """A batch is in its table and in the ledger."""
        with self._quietly("alerts"):
            outcomes = self._outcomes[outcome.job]
            outcomes.append(outcome)
            self._alerts[outcome.job].batch(outcomes)

    def job_ends(
        self,
        job: LoadedJob,
        flows: Sequence[str],
        errors: Sequence[BaseException],
        started: datetime,
        finished: datetime,
        sla_met: bool | None,
    ) -> None:
        """The flows of a job have ended, and `ops.runs` says how."""
        if job.conf.alerts:
            figures = Figures(
                self.suite,
                job,
                self.run_id,
                finished,
                flows=flows,
                failed=bool(errors),
                sla_met=sla_met,
                duration_s=(finished - started).total_seconds(),
            )
            with self._quietly("alerts"):
                self._alerts[job.name].judge(figures, [str(error) for error in errors])

    def ends(self) -> None:
        """The run is over, for all of its jobs."""
        with self._quietly("metrics"):
            metrics.write(self.suite)

    @contextmanager
    def _quietly(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as cause:  # whatever a warehouse, a disk or a library raises: the rows are where they belong
            told = " ".join(redacted(str(cause), self.suite.secrets).split())
            self.says(f"{what}: not told: {type(cause).__name__}: {shortened(told, MOST_SAID)}")
