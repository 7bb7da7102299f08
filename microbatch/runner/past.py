"""Where the tables and checkpoints of some jobs stood at the end of an earlier run, and what stands in the way back there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from microbatch.config import LoadedJob, Suite
from microbatch.errors import ConfigError, Problem, StateChanged
from microbatch.job import Flow, Source, tables_read
from microbatch.places import is_seen, place, plain
from microbatch.runner.accept import query_id
from microbatch.runner.cut import known_ids
from microbatch.runner.inputs import checkpoint_of
from microbatch.runner.report import run_id
from microbatch.runner.rewinding import NOTHING, FlowBack, Plan, TableBack
from microbatch.sink import ops
from microbatch.sink.tables import HARMLESS, Table, outcome_of
from microbatch.sources.listing import look_at_each
from microbatch.sources.record import Record
from microbatch.sources.tables import end_version

Batches = list[dict[str, Any]]


def plan(suite: Suite, jobs: Sequence[LoadedJob], to: datetime) -> Plan:
    """What has to go back where, so that these jobs stand as at the end of their last successful run before `to`.

    Several jobs go back to one point: where one of them had not read all that another had written by then, the point moves
    further back, until what each has read is what the others hold.

    Raises:
        ConfigError: no run ended well before that, or another job reads a table that goes back and is not named.
        StateChanged: something that is needed to go back is no longer there.
    """
    then = _consistent(suite, jobs, to)
    tables = [table for _, flow in then.flows for table in then.table_back(flow)]
    back = {table.table for table in tables}
    _refuse_readers(suite, [job.name for job in jobs], back)
    flows = [found for job, flow in then.flows if (found := then.flow_back(job, flow, back))]
    problems = [*then.problems(tables), *(what for flow in flows for what in _vanished(flow))]
    if problems:
        remedy = "put back what is missing, or name a later time; nothing was touched"
        raise StateChanged(", ".join(job.name for job in jobs), "; ".join(problems), remedy)
    letters = {
        letter for table in tables for letter in _undone_letters(Table(then.warehouse, table.table), table.version)
    }
    names = tuple(job.name for job in jobs)
    return Plan(
        f"rewind:{run_id()}", then.point.isoformat(), names, tuple(tables), tuple(flows), tuple(sorted(letters))
    )


@dataclass(frozen=True)
class _Then:
    """What stood at a point in time: the batches that were done by then, and those that came later."""

    suite: Suite
    flows: tuple[tuple[LoadedJob, Flow], ...]
    point: datetime
    kept: Batches
    later: Batches
    ids: dict[str, str]  # new query ids, by the table that the query writes

    @property
    def warehouse(self) -> str:
        return self.suite.environment.storage["warehouse"]

    def of(self, job: LoadedJob, flow: Flow, batches: Batches) -> Batches:
        return [each for each in batches if (each["job"], each["flow"]) == (job.name, flow.name)]

    def own(self, job: LoadedJob, flow: Flow) -> Batches:
        """The batches of the flow's checkpoint, the oldest first."""
        mine = [each for each in self.of(job, flow, self.kept) if not each["query_id"].startswith(ops.BESIDE)]
        return sorted(mine, key=lambda each: each["started_at"])

    def version(self, table: str) -> int:
        """The version of a table that the last batch of these flows made by then."""
        wrote = [
            b["target_version"] for j, f in self.flows if f.writes.table == table for b in self.of(j, f, self.kept)
        ]
        return max((version for version in wrote if version is not None), default=NOTHING)

    def drained(self) -> bool:
        """Whether each flow had read all that the flows of these jobs had written by then."""
        ours = {flow.writes.table for _, flow in self.flows}
        for job, flow in self.flows:
            if str(flow.reads) not in ours:
                continue
            mine, held = self.own(job, flow), self.version(str(flow.reads))
            read = end_version(mine[-1]["source_end"]) if mine else NOTHING
            if read < held:
                return False
        return True

    def table_back(self, flow: Flow) -> Iterator[TableBack]:
        """The flow's target, where anything but housekeeping was committed to it since."""
        table, version = Table(self.warehouse, flow.writes.table), self.version(flow.writes.table)
        since = [commit for commit in table.commits() if commit["version"] > version]
        if any(commit.get("operation") not in HARMLESS for commit in since):
            yield TableBack(table.name, version, self.ids[flow.writes.table])

    def flow_back(self, job: LoadedJob, flow: Flow, back: set[str]) -> FlowBack | None:
        """The flow's checkpoint, where it took in batches since, or its input goes back."""
        reads = str(flow.reads) if str(flow.reads) in back else None
        later = [each for each in self.of(job, flow, self.later) if not each["query_id"].startswith(ops.BESIDE)]
        checkpoint, mine = checkpoint_of(self.suite, job, flow), self.own(job, flow)
        current = query_id(checkpoint)
        if current is None or not (later or reads or flow.writes.table in back):
            return None
        known = known_ids(checkpoint, current)
        if mine and mine[-1]["query_id"] not in known:
            what = f"its checkpoint was begun anew since {self.point:%Y-%m-%d %H:%M:%S} UTC"
            raise StateChanged(flow.name, what, "name a time after that")
        ends = {str(each["batch_id"]): each["source_end"] for each in mine[-2:]}
        last = mine[-1]["batch_id"] if mine else NOTHING
        return FlowBack(job.name, flow.name, str(checkpoint), last, self.ids[flow.writes.table], known, ends, reads)

    def problems(self, tables: Sequence[TableBack]) -> Iterator[str]:
        """Why a table cannot be set back."""
        ours = {(job.name, flow.name) for job, flow in self.flows}
        for job, flow in self.flows:
            later = [b for b in self.of(job, flow, self.later) if not b["query_id"].startswith(ops.BESIDE)]
            if later and isinstance(flow.reads, Source) and (why := job.conf.sources[flow.reads.name].gone()):
                yield f"{flow.name} would have to read source {flow.reads.name} again, and {why}"
        for each in tables:
            table = Table(self.warehouse, each.table)
            for commit in table.commits():
                outcome = outcome_of(commit)
                if commit["version"] > each.version and outcome and (outcome.job, outcome.flow) not in ours:
                    yield f"{each.table} was also written by {outcome.job}.{outcome.flow}, which is not rewound"
                    break
            if each.version != NOTHING and (missing := _missing(table, each.version)):
                yield f"files of {each.table} at version {each.version} were vacuumed ({missing})"


def _consistent(suite: Suite, jobs: Sequence[LoadedJob], to: datetime) -> _Then:
    warehouse, names = suite.environment.storage["warehouse"], [job.name for job in jobs]
    ledger = ops.rows(warehouse, "batches", [("job", "in", names)])
    runs = ops.rows(warehouse, "runs", [("job", "in", names), ("status", "=", "done")])
    flows = tuple((job, flow) for job in jobs for flow in job.flows)
    ids = {flow.writes.table: str(uuid.uuid4()) for _, flow in flows}
    while True:
        ends = {name: _last_end(runs, name, to) for name in names}
        point = max(ends.values())
        kept = [each for each in ledger if each["started_at"] <= point]
        later = [each for each in ledger if each["started_at"] > point]
        then = _Then(suite, flows, point, kept, later, ids)
        if then.drained():
            return then
        to = min(ends.values()) if min(ends.values()) < point else point - timedelta(microseconds=1)


def _last_end(runs: Batches, job: str, before: datetime) -> datetime:
    ends: list[datetime] = [run["finished_at"] for run in runs if run["job"] == job]
    found = max((end for end in ends if end <= before), default=None)
    if found is None:
        first = f"; the first ended {min(ends):%Y-%m-%d %H:%M:%S} UTC" if ends else ""
        what = f"no run of {job} had ended well by {before:%Y-%m-%d %H:%M:%S} UTC{first}"
        raise ConfigError(Problem("--to", what))
    return found


def _refuse_readers(suite: Suite, jobs: Sequence[str], back: set[str]) -> None:
    """Another job that reads a table which goes back would go on from rows that were never there."""
    problems = [
        Problem(
            f"jobs/{job.name}.py", f"reads {table}, which is set back: name {job.name} too, or leave out its writer"
        )
        for job in suite.jobs.values()
        if job.name not in jobs
        for table in sorted({table for flow in job.flows for table in tables_read(flow)} & back)
    ]
    if problems:
        raise ConfigError(*problems)


def _undone_letters(table: Table, version: int) -> set[str]:
    """The letters that replays took in after a version: they are open again once the table is back at it."""
    later = (outcome_of(commit) for commit in table.commits() if commit["version"] > version)
    return {letter for outcome in later if outcome for letter in outcome.letters}


def _missing(table: Table, version: int) -> str:
    """A file that the table had at a version and that is no longer there; empty where all are, or nobody can look."""
    if not is_seen(table.path):
        return ""  # RESTORE itself looks, and refuses
    uris = [plain(uri) for uri in table.open(version).file_uris()]
    return next((uri for uri, file in look_at_each(uris).items() if file is None), "")


def _vanished(flow: FlowBack) -> Iterator[str]:
    """Files of the batches to come that were read once and are gone: they would be missing without a word."""
    record = Record(place(flow.checkpoint))
    gone = [path for path, file in look_at_each(record.after(flow.batch_id)).items() if file is None]
    if gone:
        more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
        yield f"{flow.flow} would have to read again {', '.join(gone[:3])}{more}, which is gone"
