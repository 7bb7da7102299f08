"""A rewind, step by step, from a plan that is written down first: killed anywhere, it is begun again and ends the same.

Tables first (RESTORE, marked with the rewind's id), then checkpoints, then letters and ledger: while the plan lies beside a
job's lock, nothing else runs on the job.

Source:
    Delta Lake manual, "Restore a Delta table". RESTORE keeps the transaction ids in the log, so each query gets a new id; a
    reader of a restored table goes on behind the RESTORE's own version.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from microbatch.places import place, write
from microbatch.runner.cut import Baseline, cut, put_aside
from microbatch.runner.lock import REWIND
from microbatch.sink import ops, small
from microbatch.sink.tables import Rewound, Table, rewound_by

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NOTHING = -1  # the version of a table, or the batch of a flow, before the first


@dataclass(frozen=True)
class FlowBack:
    """One flow that is set back.

    Attributes:
        batch_id: the last batch that stays; -1: none, the checkpoint is put aside.
        query_id: the new id.
        before: the ids its query had, the newest last.
        ends: end offsets of the last two batches that stay, as the ledger has them, by batch id.
        reads: the table it reads, where that is set back too; None otherwise.
    """

    job: str
    flow: str
    checkpoint: str
    batch_id: int
    query_id: str
    before: tuple[str, ...]
    ends: dict[str, str]
    reads: str | None


@dataclass(frozen=True)
class TableBack:
    """One table that is set back to a version; -1: it was not there, and is emptied."""

    table: str
    version: int
    query_id: str | None


@dataclass(frozen=True)
class Plan:
    """All of a rewind: what goes back where, and the point in time behind which letters and ledger are undone."""

    rewind: str
    point: str
    jobs: tuple[str, ...]
    tables: tuple[TableBack, ...]
    flows: tuple[FlowBack, ...]
    reopened: tuple[str, ...]

    @property
    def at(self) -> datetime:
        """`point`, with its time zone."""
        return datetime.fromisoformat(self.point)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> Plan:
        found = json.loads(text)
        tables = tuple(TableBack(**each) for each in found.pop("tables"))
        flows = tuple(FlowBack(**{**each, "before": tuple(each["before"])}) for each in found.pop("flows"))
        jobs, reopened = tuple(found.pop("jobs")), tuple(found.pop("reopened"))
        return Plan(**found, jobs=jobs, tables=tables, flows=flows, reopened=reopened)


def unfinished(checkpoints: str, jobs: Sequence[str]) -> Plan | None:
    """The plan of a rewind that was begun for one of these jobs and is not done."""
    for job in jobs:
        file = place(checkpoints) / job / REWIND
        if file.exists():
            return Plan.from_json(file.read_text())
    return None


def carry_out(
    plan: Plan,
    warehouse: str,
    checkpoints: str,
    spark: Callable[[], SparkSession],
    reached: Callable[[str], None] = lambda step: None,
) -> None:
    """Do what a plan says; what an earlier attempt has done is left as it is.

    Args:
        spark: starts a session; called only where a table has to be restored.
        reached: told of each step as it is done; what it raises is a crash there.
    """
    for job in plan.jobs:
        file = place(checkpoints) / job / REWIND
        write(file, plan.to_json())
    reached("plan")
    for each in plan.tables:
        _restore(plan, Table(warehouse, each.table), each, spark)
        reached(f"table {each.table}")
    for flow in plan.flows:
        _set_back(plan, warehouse, flow)
        reached(f"checkpoint {flow.job}.{flow.flow}")
    _undo_letters(plan, warehouse)
    reached("letters")
    _undo_ledger(plan, warehouse)
    reached("ledger")
    for job in plan.jobs:
        (place(checkpoints) / job / REWIND).unlink()


def _restore(plan: Plan, table: Table, back: TableBack, spark: Callable[[], SparkSession]) -> None:
    if _version_after(plan, table) is not None:
        return
    mark = Rewound(plan.rewind, back.version, back.query_id).to_json()
    if back.version != NOTHING and small.restore(table, back.version, mark):
        return
    from delta.tables import DeltaTable

    session = spark()
    stored = DeltaTable.forPath(session, table.path)
    # What an earlier session set for a stream's commits must not key this one.
    session.conf.set("spark.databricks.delta.commitInfo.userMetadata", mark)
    try:
        if back.version == NOTHING:
            stored.delete()
        else:
            stored.restoreToVersion(back.version)
    finally:
        session.conf.unset("spark.databricks.delta.commitInfo.userMetadata")


def _version_after(plan: Plan, table: Table) -> int | None:
    """The version this rewind made of a table, or None where it has not yet."""
    for commit in table.commits(20):
        if (mark := rewound_by(commit)) and mark.rewind == plan.rewind:
            return int(commit["version"])
    return None


def _set_back(plan: Plan, warehouse: str, flow: FlowBack) -> None:
    checkpoint = place(flow.checkpoint)
    if flow.batch_id == NOTHING:
        put_aside(checkpoint, plan.rewind)
        return
    ends = {int(number): end for number, end in flow.ends.items()}
    if flow.reads and (version := _version_after(plan, Table(warehouse, flow.reads))) is not None:
        # All that the table held at this point was read: the reader goes on behind the commit that restored it. Both last
        # offsets stand there, because a query that starts asks its source for the last batch once more.
        behind = {"reservoirVersion": version + 1, "index": -1, "isStartingVersion": False}
        ends = {n: json.dumps({**json.loads(end), **behind}, separators=(",", ":")) for n, end in ends.items()}
    cut(checkpoint, Baseline(flow.query_id, flow.batch_id, flow.before), ends)


def _undo_letters(plan: Plan, warehouse: str) -> None:
    stored = Table(warehouse, "ops.quarantine")
    if not stored.exists():
        return
    _delete(stored, _undone(plan, warehouse, "quarantine", "quarantined_at"))
    if plan.reopened:
        these = f"id IN {ops.literal(plan.reopened)} AND status = 'replayed'"
        ops.change(stored, lambda opened: opened.update(predicate=these, updates={"status": "'open'"}))


def _undone(plan: Plan, warehouse: str, table: str, when: str) -> str:
    """SQL for what the undone batches left in a table: all since the point, but what a batch left that had begun by then."""
    jobs, key = ("job", "in", plan.jobs), ("query_id", "batch_id")
    late = ops.rows(warehouse, table, [jobs, (when, ">", plan.at)], key)
    begun = ops.rows(warehouse, "batches", [jobs, ("started_at", "<=", plan.at)], key)
    stay = {(each["query_id"], each["batch_id"]) for each in late} & {(b["query_id"], b["batch_id"]) for b in begun}
    these = f"job IN {ops.literal(plan.jobs)} AND {when} > {ops.literal(plan.at)}"
    but = [f"NOT (query_id = {ops.literal(query)} AND batch_id = {batch})" for query, batch in sorted(stay)]
    return " AND ".join([these, *but])


def _undo_ledger(plan: Plan, warehouse: str) -> None:
    mine = f"job IN {ops.literal(plan.jobs)}"
    later = [("job", "in", plan.jobs), ("started_at", ">", plan.at)]
    undone = ops.rows(warehouse, "batches", later, only=("query_id", "batch_id"))
    # The expectations have no time of their own: they go by their batches, and so before these.
    for query_id in sorted({each["query_id"] for each in undone}):
        first = min(each["batch_id"] for each in undone if each["query_id"] == query_id)
        of_query = f"query_id = {ops.literal(query_id)} AND batch_id >= {first}"
        _delete(Table(warehouse, "ops.expectations"), f"{mine} AND {of_query}")
    after = ops.literal(plan.at)
    for name, when in ops.MEMORY.items():
        _delete(Table(warehouse, f"ops.{name}"), _undone(plan, warehouse, name, when))
    _delete(Table(warehouse, "ops.batches"), f"{mine} AND started_at > {after}")
    _delete(Table(warehouse, "ops.runs"), f"{mine} AND finished_at > {after} AND run_id <> {ops.literal(plan.rewind)}")
    now = datetime.now(timezone.utc)
    row = {"run_id": plan.rewind, "started_at": now, "finished_at": now, "status": "rewound", "exit_code": 0}
    records = [{**row, "job": job, "accepted": f"rewind to {plan.point}"} for job in plan.jobs]
    ops.append(warehouse, "runs", records, key=(plan.rewind, 0))


def _delete(table: Table, predicate: str) -> None:
    if table.exists():
        ops.change(table, lambda opened: opened.delete(predicate))
