"""How a run that goes on is, for whoever asks the process itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Literal

State = Literal["waiting", "away", "ended"]


class Health:
    """Each flow's last word of itself. Its methods may be called from any thread.

    A flow is `waiting` for what comes, or its source is `away` and is asked again, or it has `ended` because somebody has to
    mend something: only that is not well. `at` is when it last came back from looking; a flow that hangs has an old one.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id, self._since = run_id, _now()
        self._flows: dict[str, dict[str, Any]] = {}

    def says(self, flow: str, state: State, at: str | None = None, batches: int = 0, error: str | None = None) -> None:
        """How a flow is; no secret in it."""
        self._flows[flow] = {"state": state, "at": at, "batches": batches, "error": error}

    def came_back(self, flow: str, state: State, batches: int, error: str | None = None) -> None:
        """A flow has looked, and taken in what there was."""
        self.says(flow, state, _now(), batches, error)

    def __call__(self) -> tuple[bool, Mapping[str, Any]]:
        """Whether no flow has ended, and how each is."""
        flows = dict(self._flows)
        well = all(flow["state"] != "ended" for flow in flows.values())
        return well, {"run_id": self._run_id, "since": self._since, "flows": flows}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
