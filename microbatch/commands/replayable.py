"""Which open letters can be replayed. Without a JVM."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from microbatch.commands.quarantine import Letters
from microbatch.errors import StateChanged
from microbatch.job import Flow
from microbatch.runner.handshake import Standing, shake
from microbatch.runner.inputs import checkpoint_of, reads_of

Found = Sequence[dict[str, Any]]


def of_finished_batches(letters: Letters, found: Found) -> list[dict[str, Any]]:
    """These letters without those of a batch that the next run judges anew: it replaces them, and takes their rows in by itself.

    Prints a line for each flow that has such ones.

    Args:
        found: with `flow`, `query_id` and `batch_id`.

    Raises:
        StateChanged: none is left; or a checkpoint does not fit its table.
        ConfigError: a flow reads something else than what its checkpoint has offsets of.
    """
    finished, left = [], []
    for flow in letters.job.flows:
        mine = [letter for letter in found if letter["flow"] == flow.name]
        if not mine:
            continue
        standing = _standing(letters, flow)
        done = [letter for letter in mine if not _is_judged_anew(letter, standing)]
        finished += done
        if len(done) < len(mine):
            left.append((flow.name, len(mine) - len(done), f"batch {standing.planned} is unfinished"))
    if left and not finished:
        flow_name, _, what = left[0]
        raise StateChanged(
            flow_name, f"{what}, and its letters with it", f"run `microbatch run {letters.job.name}` first"
        )
    for flow_name, count, what in left:
        print(
            f"{count:,} letters of {flow_name} are not replayed: {what}, and its run judges their rows", file=sys.stderr
        )
    return finished


def _standing(letters: Letters, flow: Flow) -> Standing:
    suite, job = letters.suite, letters.job
    warehouse, checkpoint = suite.environment.storage["warehouse"], checkpoint_of(suite, job, flow)
    return shake(warehouse, checkpoint, job, flow, reads_of(suite, job, flow))


def _is_judged_anew(letter: dict[str, Any], standing: Standing) -> bool:
    """Whether it is of an attempt at a batch which neither the target nor the checkpoint has done."""
    done = max(standing.done, standing.committed)
    return bool(letter["query_id"] == standing.query_id and letter["batch_id"] > done)
