"""Before letters are replayed, without a JVM: killed replays are brought to their end, unfinished batches keep their letters."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from microbatch.commands.quarantine import Letters
from microbatch.errors import StateChanged
from microbatch.job import Flow
from microbatch.quarantine import TABLE, mark, these
from microbatch.runner.handshake import Standing, shake
from microbatch.runner.inputs import checkpoint_of, reads_of
from microbatch.sink import ops
from microbatch.sink.ops import REPLAY
from microbatch.sink.tables import Table, outcome_of

Found = Sequence[dict[str, Any]]
OF_FILE = "/files/"  # what stands in it before the id of a file's letter


def settle(letters: Letters) -> None:
    """Do what replays that were killed left undone; as with a batch, the target's commit decides.

    A commit gets its ledger row, and its letters their status. Of an attempt with neither commit nor ledger row the letters go
    that it wrote for the bad rows of a file or a group: the letter of that one is still open, and replayed it writes them again.
    """
    warehouse, job = letters.suite.environment.storage["warehouse"], letters.job
    tables = {flow.name: flow.writes.table for flow in job.flows}
    stored, mine = Table(warehouse, TABLE), [("job", "=", job.name)]
    of_job = ops.rows(warehouse, "quarantine", mine, ("id", "flow", "status", "query_id", "batch_id"))
    found = [each for each in of_job if each["flow"] in tables]
    replays = [*mine, ("query_id", "LIKE", f"{REPLAY}%")]
    done = {_key(batch) for batch in ops.rows(warehouse, "batches", replays, ("query_id", "batch_id"))}
    # A file of which no row parsed leaves no commit in the target.
    taken = {query_id.partition(OF_FILE)[2] for query_id, _ in done}
    for name in sorted({tables[each["flow"]] for each in found}):
        for outcome in filter(None, map(outcome_of, Table(warehouse, name).commits())):
            taken.update(outcome.letters)
            key = (outcome.query_id, outcome.batch_id)
            if outcome.job == job.name and outcome.query_id.startswith(REPLAY) and key not in done:
                ops.record(warehouse, outcome)
                done.add(key)
    mark(stored, [each["id"] for each in found if each["status"] == "open" and each["id"] in taken], "replayed")
    undone = [each["id"] for each in found if each["query_id"].startswith(REPLAY) and _key(each) not in done]
    if undone:
        ops.change(stored, lambda opened: opened.delete(these(undone)))


def _key(of_batch: dict[str, Any]) -> tuple[str, int]:
    return of_batch["query_id"], of_batch["batch_id"]


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
