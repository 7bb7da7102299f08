"""Before a flow starts, and without a JVM: its checkpoint is held against its target and the ledger.

Spark trusts a checkpoint blindly: one that was lost makes an append double what the table holds, one that was rolled back makes
it skip what is new, both without a word. Here what does not fit stops the flow, with the remedy by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from microbatch.config import LoadedJob
from microbatch.errors import ConfigError, Problem, StateChanged, shortened
from microbatch.job import Flow
from microbatch.places import Place, lines_of, write
from microbatch.runner.accept import accepted
from microbatch.runner.cut import baseline, known_ids
from microbatch.sink import ops
from microbatch.sink.tables import Table, outcome_of, rewound_by
from microbatch.sources.tables import numbered

# Of the ledger's rows under one query id; by SQL, for a run that goes on looks once a second and keeps years of rows.
LAST = """query_id, max(started_at) AS started_at, max(batch_id) AS batch_id, max(target_version) AS target_version,
    max(CASE WHEN target_version IS NOT NULL THEN batch_id END) AS wrote"""


@dataclass(frozen=True)
class Standing:
    """Where a flow stands.

    Attributes:
        query_id: the checkpoint's; None before the first run.
        committed: the last batch under that id that is in the target, or in the ledger where it wrote nothing; -1 for none.
        planned: the last batch Spark planned, -1 for none.
        done: the last batch Spark committed, -1 for none; less than `planned`: a batch is unfinished.
    """

    query_id: str | None
    committed: int
    planned: int
    done: int

    @property
    def unfinished(self) -> bool:
        return self.planned > self.done


def shake(warehouse: str, checkpoint: Place, job: LoadedJob, flow: Flow, reads: Mapping[str, Any]) -> Standing:
    """Where a flow stands, or the reason why it must not go on.

    Args:
        reads: what the flow reads (kind, path, schema…): what it was when the checkpoint began must still hold.

    Raises:
        StateChanged: the checkpoint is damaged, lost, older or foreign, or the target was restored or dropped.
        ConfigError: the flow reads something else than what its checkpoint has offsets of.
    """
    from deltalake.exceptions import DeltaError

    try:
        return _standing(warehouse, checkpoint, job, flow, reads)
    except DeltaError as cause:
        why = shortened(str(cause).splitlines()[0], 300)
        what = f"the log of table {flow.writes.table} or of the ledger cannot be read: {why}"
        raise StateChanged(flow.name, what, "put back what is missing below its _delta_log and run again") from cause


def _standing(warehouse: str, checkpoint: Place, job: LoadedJob, flow: Flow, reads: Mapping[str, Any]) -> Standing:
    target = Table(warehouse, flow.writes.table)
    rows = ops.asked(warehouse, "batches", LAST, _of(job, flow), "GROUP BY query_id")
    ledger = [batch for batch in rows if not batch["query_id"].startswith(ops.BESIDE)]
    query_id = _query_id(flow, checkpoint)
    planned, done = _last(checkpoint / "offsets"), _last(checkpoint / "commits")
    if query_id is None:
        if not accepted(checkpoint):
            _refuse_lost(job, flow, target, ledger)
        return Standing(None, -1, -1, -1)
    _refuse_damaged(flow, checkpoint, planned, done)
    latest = max(ledger, key=lambda batch: batch["started_at"], default=None)
    ids = known_ids(checkpoint, query_id)
    if latest and latest["query_id"] not in ids and not accepted(checkpoint):
        what = f"the checkpoint {checkpoint} is of another query ({query_id}; the ledger knows {latest['query_id']})"
        raise StateChanged(flow.name, what, _START_ANEW)
    mine = [batch for batch in ledger if batch["query_id"] in ids]
    committed, back = target.last_batch(query_id), baseline(checkpoint)
    in_target = max(-1 if committed is None else committed, back.batch_id if back else -1)
    in_ledger = max((batch["batch_id"] for batch in mine), default=-1)
    wrote = max((batch["wrote"] for batch in mine if batch["wrote"] is not None), default=-1)
    ahead = max(in_target, in_ledger) - planned
    if ahead > 0:
        what = (
            f"the checkpoint is older than the table: {target.name} is {ahead} batch{'es' if ahead > 1 else ''} ahead"
        )
        raise StateChanged(flow.name, what, _START_ANEW)
    if in_target < wrote or _restored(target, mine, query_id):
        what = (
            f"table {target.name} was dropped or restored: the ledger knows batch {wrote}, the table holds {in_target}"
        )
        raise StateChanged(
            flow.name, what, "put the table back, or start anew from the source with `--accept checkpoint`"
        )
    # Spark commits a batch after the ledger has it, and plans the next one after that.
    needed = max(done, planned - 1)
    if max(in_target, in_ledger) < needed:
        what = f"the checkpoint is ahead: it has done batch {needed}, and neither {target.name} nor the ledger has it"
        raise StateChanged(flow.name, what, _START_ANEW)
    _refuse_other_input(checkpoint, job, flow, reads)
    recorded = max((batch["batch_id"] for batch in mine if batch["query_id"] == query_id), default=-1)
    return Standing(query_id, max(in_target, recorded), planned, done)


def remember_input(checkpoint: Place, reads: Mapping[str, Any]) -> None:
    """Write down what a new checkpoint has offsets of."""
    file = checkpoint / "microbatch" / "reads.json"
    if not file.exists():
        write(file, json.dumps(reads, sort_keys=True))  # a crash in between must not leave an empty record


_START_ANEW = (
    "put the right checkpoint back, or start anew from the source with `--accept checkpoint` "
    "(an Append doubles what it holds)"
)


def _of(job: LoadedJob, flow: Flow) -> list[tuple[str, str, Any]]:
    return [("job", "=", job.name), ("flow", "=", flow.name)]


def _last(folder: Place) -> int:
    return (numbered(folder) or [-1])[-1]


def _query_id(flow: Flow, checkpoint: Place) -> str | None:
    file = checkpoint / "metadata"
    if not file.exists():
        if any(numbered(checkpoint / name) for name in ("offsets", "commits")):
            raise _damaged(flow, file, "is missing")
        return None
    try:
        return str(json.loads(file.read_text())["id"])
    except (ValueError, KeyError, TypeError) as cause:
        raise _damaged(flow, file) from cause


def _refuse_lost(job: LoadedJob, flow: Flow, target: Table, ledger: list[dict[str, Any]]) -> None:
    """No checkpoint is fine for a new flow, and for no other."""
    if ledger:
        what = f"lost checkpoint; table {target.name} holds batches 0..{max(batch['batch_id'] for batch in ledger)}"
        raise StateChanged(flow.name, what, _START_ANEW)
    names = {each.name for each in job.flows}
    for commit in target.commits():
        outcome = outcome_of(commit)
        if outcome and outcome.job == job.name and outcome.flow == flow.name:
            raise StateChanged(
                flow.name, f"lost checkpoint; table {target.name} holds batches 0..{outcome.batch_id}", _START_ANEW
            )
        if outcome and outcome.job == job.name and outcome.flow not in names:
            what = (
                f"table {target.name} was written by flow {outcome.flow}, which the job no longer has; was it renamed?"
            )
            raise StateChanged(flow.name, what, f"name it {outcome.flow} again, or write a new table")


def _refuse_damaged(flow: Flow, checkpoint: Place, planned: int, done: int) -> None:
    if planned < 0 and done < 0:
        return
    if done > planned:
        raise _damaged(flow, checkpoint / "offsets" / str(done), "is missing")
    for folder, number in (("offsets", planned), ("offsets", planned - 1), ("commits", done)):
        file = checkpoint / folder / str(number)
        if number >= 0:
            _refuse_not_whole(flow, file, at_least=3 if folder == "offsets" else 2)
    _refuse_damaged_log(flow, checkpoint, planned)


def _refuse_damaged_log(flow: Flow, checkpoint: Place, planned: int) -> None:
    """The file source's own log, where there is one: Spark reads it from its last compaction to the newest offset."""
    offset = json.loads(lines_of((checkpoint / "offsets" / str(planned)).read_text("utf-8"))[2])
    log = checkpoint / "sources" / "0"
    for number in range(offset.get("logOffset", -1), -1, -1):
        compact = log / f"{number}.compact"
        _refuse_not_whole(flow, compact if compact.exists() else log / str(number), at_least=1)
        if compact.exists():
            break


def _refuse_not_whole(flow: Flow, file: Place, at_least: int) -> None:
    """A file of a checkpoint: its format's version, then lines of JSON, at least so many lines in all."""
    if not file.exists():
        raise _damaged(flow, file, "is missing")
    lines = lines_of(file.read_text("utf-8", errors="replace"))
    if len(lines) < at_least or lines[0] != "v1" or not all(_is_json(line) for line in lines[1:]):
        raise _damaged(flow, file)


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _restored(target: Table, mine: list[dict[str, Any]], query_id: str) -> bool:
    """Whether somebody went back to an older version after the last batch that the ledger knows.

    A rewind does so too, and gives the checkpoint a new id: one with an older id was put back since.
    """
    known = max((batch["target_version"] for batch in mine if batch["target_version"] is not None), default=-1)
    if known < 0:
        return False
    newest = target.version()
    if newest is None or newest < known:
        return True
    for commit in target.commits(max(1, newest - known)):
        if mark := rewound_by(commit):
            return mark.query_id not in (None, query_id)
        if commit["version"] > known and commit.get("operation") == "RESTORE":
            return True
    return False


def _refuse_other_input(checkpoint: Place, job: LoadedJob, flow: Flow, reads: Mapping[str, Any]) -> None:
    file = checkpoint / "microbatch" / "reads.json"
    if not file.exists():
        return
    try:
        before = dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as cause:
        raise _damaged(flow, file) from cause
    changed = [
        f"{name} was {before.get(name)!r}, is {reads.get(name)!r}"
        for name in sorted({*before, *reads})
        if before.get(name) != reads.get(name)
    ]
    if changed:
        what = (
            f"flow {flow.name} reads something else than its checkpoint: {'; '.join(changed)}; "
            "put it back, or start anew with --accept checkpoint"
        )
        raise ConfigError(Problem(f"jobs/{job.name}.py", what))


def _damaged(flow: Flow, file: Place, what: str = "cannot be read") -> StateChanged:
    return StateChanged(flow.name, f"checkpoint damaged: {file} {what}", _START_ANEW)
