"""A run that goes on until somebody stops it: each flow at its own pace, in one session.

A flow looks for what is new in plain Python, and takes it in as any run does; so a restart finds what a run that ends would
find. A source that does not answer is left alone for a while, ever longer or as long as it asks, and stops no other flow; what
somebody has to mend ends its own flow only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from microbatch.config import LoadedJob
from microbatch.errors import TransientError, redacted
from microbatch.job import Flow, Source
from microbatch.outcome import Outcome
from microbatch.retry import classify, left_alone_s
from microbatch.runner.report import FlowRun, State
from microbatch.runner.take import Run, take

LOOK_S = 1.0  # how often a flow looks whether its table holds something new
TELL_S = 60.0  # how often alerts are judged and metrics written


def go_on(this: Run, wanted: Sequence[tuple[LoadedJob, Flow]]) -> tuple[FlowRun, ...]:
    """Take in what comes, until a stop is asked for or every flow has ended for good.

    Returns:
        What became of each flow; its one outcome holds the sums of its batches.
    """
    began = time.monotonic()
    paces = [_Pace(this, job, flow) for job, flow in wanted]
    threads = [threading.Thread(target=pace.go, name=pace.name, daemon=True) for pace in paces]
    for thread in threads:
        thread.start()
    told = began
    while any(thread.is_alive() for thread in threads):
        # Joined in steps: a signal is only handled between them.
        next((thread for thread in threads if thread.is_alive()), threads[0]).join(timeout=0.5)
        if time.monotonic() - told > TELL_S:
            told = time.monotonic()
            _tell(this, paces, told - began)
    return tuple(pace.ended() for pace in paces)


def _tell(this: Run, paces: Sequence[_Pace], lasted_s: float) -> None:
    for name in dict.fromkeys(pace.job.name for pace in paces):
        mine = [pace for pace in paces if pace.job.name == name]
        this.watch.pauses(mine[0].job, [pace.flow.name for pace in mine], lasted_s, _wrong(mine))


def _wrong(paces: Sequence[_Pace]) -> list[BaseException] | None:
    """What is wrong with these flows just now; None where that is not known yet: one has not come back for the first time."""
    errors = [error for pace in paces if (error := pace.error)]
    return errors if errors or all(pace.came_back for pace in paces) else None


class _Pace:
    """One flow of a run that goes on.

    Attributes:
        error: why its last look or batch failed, as its health says; None: it did not.
        came_back: it has looked at least once, and is through with what it found then.
    """

    def __init__(self, this: Run, job: LoadedJob, flow: Flow) -> None:
        self.this, self.job, self.flow = this, job, flow
        self.name = f"{job.name}.{flow.name}"
        source = job.conf.sources[flow.reads.name] if isinstance(flow.reads, Source) else None
        self._look_s = source.look_s if source else LOOK_S
        self._batches = 0
        self._sum: Outcome | None = None
        self.error: BaseException | None = None
        self.came_back = False
        this.health.says(self.name, "waiting")

    def go(self) -> None:
        """Take in what comes until a stop is asked for, or the flow fails for good."""
        failures = 0
        while not self.this.stopping.is_set():
            wait_s = self._round(failures)
            if wait_s is None:
                return
            failures = failures + 1 if self.error else 0
            self.this.stopping.wait(wait_s)

    def ended(self) -> FlowRun:
        """What became of it; a fault that was over by the end is none."""
        outcomes = (self._sum,) if self._sum else ()
        state: State = "failed" if self.error else "done" if outcomes else "idle"
        return FlowRun(self.job.name, self.flow.name, state, outcomes, self.error, self._batches)

    def _round(self, failures: int) -> float | None:
        """Take in what is there now; how long to wait for more [s], or None where somebody has to mend something first."""
        outcomes: list[Outcome] = []
        try:
            state = take(self.this, self.job, self.flow, outcomes)
            self.error = None
            self.this.health.came_back(self.name, "waiting", self._batches + len(outcomes))
            self.this.watch.flow_ends(self.job, self.flow, outcomes)
            return 0.0 if state == "done" else self._look_s
        except (Exception, SystemExit, KeyboardInterrupt) as cause:
            self.error = classify(cause, self.flow.name, outcomes[-1].batch_id + 1 if outcomes else None)
            self.this.watch.flow_ends(self.job, self.flow, outcomes, self.error)
            told, batches = redacted(str(self.error), self.this.suite.secrets), self._batches + len(outcomes)
            self.this.health.came_back(
                self.name, "away" if isinstance(self.error, TransientError) else "ended", batches, told
            )
            if not isinstance(self.error, TransientError):
                self.this.says(f"{self.name} has ended: {self.error}")
                return None
            wait_s = left_alone_s(self.error, failures)
            self.this.says(f"{self.name}: {self.error}; again in {wait_s:.0f} s")
            return wait_s
        finally:
            for outcome in outcomes:
                self._sum = self._sum.plus(outcome) if self._sum else outcome
            self._batches += len(outcomes)
            self.came_back = True
