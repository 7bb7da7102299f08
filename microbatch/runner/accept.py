"""Giving something up on purpose: `run JOB --flow F --accept checkpoint|files|batch`.

Each is somebody's decision, is recorded in `ops.runs`, and leaves what it gave up where it can be looked at.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

Accept = Literal["checkpoint", "files", "batch"]
MARK = Path("microbatch") / "accepted.json"


def start_anew(checkpoint: Path, run_id: str, starting_version: int | None = None) -> None:
    """Put a checkpoint aside, as `<flow>.given-up-<run>`, and let the flow begin again at its source.

    An Append will hold twice what it held; an Upsert, a History or a Replace end the same.

    Args:
        starting_version: the version of the table it reads to begin at; None: from the beginning.
    """
    before = query_id(checkpoint)
    if checkpoint.exists():
        checkpoint.rename(checkpoint.with_name(f"{checkpoint.name}.given-up-{run_id}"))
    mark = checkpoint / MARK
    mark.parent.mkdir(parents=True)
    mark.write_text(json.dumps({"run_id": run_id, "instead_of": before, "starting_version": starting_version}))


def accepted(checkpoint: Path) -> bool:
    """Whether somebody decided that this checkpoint begins anew."""
    return (checkpoint / MARK).exists()


def starting_version(checkpoint: Path) -> int | None:
    """The version of its table that a checkpoint was told to begin at."""
    mark = checkpoint / MARK
    return json.loads(mark.read_text()).get("starting_version") if mark.exists() else None


def query_id(checkpoint: Path) -> str | None:
    """The checkpoint's query id, or None where it has none that can be read."""
    try:
        return str(json.loads((checkpoint / "metadata").read_text())["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
