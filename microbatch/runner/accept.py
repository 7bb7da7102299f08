"""Giving something up on purpose: `run JOB --flow F --accept checkpoint|files|batch`.

Each is somebody's decision, is recorded in `ops.runs`, and leaves what it gave up where it can be looked at.
"""

from __future__ import annotations

import json
from typing import Literal

from microbatch.places import Place, renamed, write

Accept = Literal["checkpoint", "files", "batch"]
MARK = "microbatch/accepted.json"


def start_anew(checkpoint: Place, run_id: str, starting_version: int | None = None) -> None:
    """Put a checkpoint aside, as `<flow>.given-up-<run>`, and let the flow begin again at its source.

    An Append will hold twice what it held; an Upsert, a History or a Replace end the same.

    Args:
        starting_version: the version of the table it reads to begin at; None: from the beginning.
    """
    before = query_id(checkpoint)
    if checkpoint.exists():
        renamed(checkpoint, f"{checkpoint.name}.given-up-{run_id}")
    mark = {"run_id": run_id, "instead_of": before, "starting_version": starting_version}
    write(checkpoint / MARK, json.dumps(mark))


def accepted(checkpoint: Place) -> bool:
    """Whether somebody decided that this checkpoint begins anew."""
    return (checkpoint / MARK).exists()


def begun_by(checkpoint: Place) -> str | None:
    """The run that put a checkpoint aside and let this one begin."""
    mark = checkpoint / MARK
    return str(json.loads(mark.read_text())["run_id"]) if mark.exists() else None


def starting_version(checkpoint: Place) -> int | None:
    """The version of its table that a checkpoint was told to begin at."""
    mark = checkpoint / MARK
    return json.loads(mark.read_text()).get("starting_version") if mark.exists() else None


def query_id(checkpoint: Place) -> str | None:
    """The checkpoint's query id, or None where it has none that can be read."""
    try:
        return str(json.loads((checkpoint / "metadata").read_text())["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
