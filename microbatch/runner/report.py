"""What became of a run, flow by flow."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from microbatch.errors import MicrobatchError
from microbatch.outcome import Outcome

EXIT_CODES_FIRST = (2, 1, 3, 5, 4)  # of several failures, the one that most needs somebody decides
State = Literal["done", "idle", "failed", "waiting", "stopped"]


@dataclass(frozen=True)
class FlowRun:
    """What became of one flow in a run: `waiting` means that a flow it depends on failed.

    Attributes:
        outcomes: of its batches; of a run that went on, one that holds their sums.
        summed: how many batches the one outcome of a run that went on stands for.
    """

    job: str
    flow: str
    state: State
    outcomes: tuple[Outcome, ...] = ()
    error: BaseException | None = None
    summed: int = 0

    @property
    def batches(self) -> int:
        """How many there were."""
        return self.summed or len(self.outcomes)


@dataclass(frozen=True)
class Report:
    """What became of a run, flow by flow, in the order they ran.

    Attributes:
        unkept: why how a job ended could not be kept; what its flows did is in their tables and in the ledger.
    """

    run_id: str
    flows: tuple[FlowRun, ...]
    unkept: tuple[MicrobatchError, ...] = ()

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for flow in self.flows for outcome in flow.outcomes]

    @property
    def errors(self) -> list[BaseException]:
        return [*(flow.error for flow in self.flows if flow.error is not None), *self.unkept]

    @property
    def exit_code(self) -> int:
        """0, or of the failures' codes the first of 2, 1, 3, 5, 4."""
        codes = {error.exit_code if isinstance(error, MicrobatchError) else 1 for error in self.errors}
        return next((code for code in EXIT_CODES_FIRST if code in codes), 0)


def run_id() -> str:
    """A new run's id: when it began, and what tells it from others."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
