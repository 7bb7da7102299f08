"""`microbatch backfill`: derive a flow's target again from its input table, beside its checkpoint, in one commit.

For a transform or a rule that was mended: what was derived wrongly before comes out right, and the stream goes on from where
it is. The input is the table as far as the checkpoint has read it.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from microbatch.commands.render import columns
from microbatch.config import LoadedJob, Suite
from microbatch.errors import ConfigError, Problem, StateChanged
from microbatch.job import Append, Flow, History, Source, Upsert
from microbatch.quarantine import mark
from microbatch.runner.accept import start_anew
from microbatch.runner.flows import work_of
from microbatch.runner.handshake import shake
from microbatch.runner.inputs import checkpoint_of, input_of, reads_of
from microbatch.runner.lock import held
from microbatch.runner.report import run_id
from microbatch.sink import ops
from microbatch.sink.tables import Table
from microbatch.sources import TableInput
from microbatch.sources.tables import end_version, last_offset

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from microbatch.outcome import Outcome
    from microbatch.work import Work


def execute(suite: Suite, job: LoadedJob, flow: str, where: str | None = None, downstream: bool = False) -> int:
    """Derive a flow's target again, then its readers' where `downstream` says so, and print what was written.

    Raises:
        ConfigError: the flow reads a source (what it read is not kept), or `where` is not SQL over the target's columns.
        StateChanged: a batch of the flow is unfinished, or its checkpoint does not fit its table.
    """
    chain = [(job, job.flow(flow))]
    readers = _readers(suite, chain[0][1])
    chain += readers if downstream else []
    if isinstance(chain[0][1].reads, Source):
        what = f"flow {flow} reads source {chain[0][1].reads.name}, and what was read is not kept"
        raise ConfigError(Problem(f"jobs/{job.name}.py", f"{what}; take it in anew with `run --accept checkpoint`"))
    with ExitStack() as locks:
        for name in sorted({each.name for each, _ in chain}):
            locks.enter_context(held(suite.environment.storage["checkpoints"], name))
        lines = []
        for number, (owner, each) in enumerate(chain):
            outcome = _Backfill(suite, owner, each).run(where if number == 0 else None)
            changed = (outcome.rows_inserted, outcome.rows_updated, outcome.rows_deleted)
            counts = (outcome.rows_read, outcome.rows_written, outcome.rows_quarantined, *changed)
            lines.append([f"{owner.name}.{each.name}", each.writes.table, *counts])
            if number:
                _read_on(suite, owner, each)
    print(columns(("flow", "table", "read", "derived", "quarantined", "inserted", "updated", "deleted"), lines))
    if readers and not downstream:
        names = ", ".join(f"{owner.name}.{each.name}" for owner, each in readers)
        print(
            f"read by {names}: changes reach a reader of changes with its next run; --downstream derives them again too"
        )
    return 0


def _readers(suite: Suite, flow: Flow) -> list[tuple[LoadedJob, Flow]]:
    """The flows that stream from the target, and those that stream from theirs, in the order their tables require."""
    found: list[tuple[LoadedJob, Flow]] = []
    tables = {flow.writes.table}
    for owner, each in suite.ordered(tuple(suite.jobs)):
        if each.reads in tables:
            tables.add(each.writes.table)
            found.append((owner, each))
    return found


def _read_on(suite: Suite, job: LoadedJob, flow: Flow) -> None:
    """Let the reader of a table that was overwritten begin behind that version: it has just derived all before it."""
    writer = suite.writer_of(str(flow.reads))[1].writes
    if isinstance(writer, Append | History):
        version = Table(suite.environment.storage["warehouse"], str(flow.reads)).version() or 0
        start_anew(checkpoint_of(suite, job, flow), run_id(), starting_version=version + 1)


class _Backfill:
    """The backfill of one flow."""

    def __init__(self, suite: Suite, job: LoadedJob, flow: Flow) -> None:
        from microbatch.commands.plan import shaped

        self.suite, self.job, self.flow = suite, job, flow
        self.warehouse, self.run_id = suite.environment.storage["warehouse"], run_id()
        self.checkpoint = checkpoint_of(suite, job, flow)
        standing = shake(self.warehouse, self.checkpoint, job, flow, reads_of(suite, job, flow))
        offset = last_offset(self.checkpoint)
        if standing.unfinished or offset is None:
            what = f"batch {standing.planned} is unfinished" if standing.unfinished else "it has read nothing yet"
            raise StateChanged(flow.name, what, f"run `microbatch run {job.name}` first")
        self.version = end_version(offset)
        self.spark, shapes = shaped(suite, job)
        self.shape = shapes[job.name, flow.name]
        input_ = input_of(suite, job, flow)
        assert isinstance(input_, TableInput)
        self.input = input_

    def run(self, where: str | None) -> Outcome:
        """Read, shape, judge and divert as a batch does, then put the result in the table's place."""
        from pyspark.sql import Observation

        from microbatch import batch
        from microbatch.sink import rewrite, targets
        from microbatch.work import Judged, Kept, outcome_of

        work, counts, target = self._work(), Observation("backfill"), self.flow.writes
        groups = self.spark.range(0) if self.flow.recompute_by else None
        kept = Kept(0, work.now(), "", "", self._rows(), None, groups=groups)
        pinned = batch.judge(work, self._only(batch.shape(work, kept, self.spark), where), counts).localCheckpoint(
            eager=True
        )
        found = counts.get
        total, leaving = found["transformed"], found["leaving"]
        judged = Judged(pinned, total, 0, total, leaving, found["deleting"], {}, batch.results_of(work, pinned, found))
        batch.refuse_stops(work, 0, judged.results)
        stale = self._open_letters()
        batch.divert(work, kept, judged)
        result = self._derived(work, batch.good(work, judged), where)
        written = result.count() if isinstance(target, Upsert) else total - leaving
        outcome = replace(
            outcome_of(work, kept, judged, written),
            rows_superseded=total - leaving - written,
            rows_deleted=0 if isinstance(target, Upsert) else self._count(where),
        )
        commit = targets.Commit(work.query_id, 0, outcome.to_json(), {}, work.properties)
        rewrite.write(target, work.target, result, commit, where)
        outcome = batch.of_commit(work, outcome)
        ops.record(self.warehouse, outcome)
        mark(Table(self.warehouse, "ops.quarantine"), stale, "replayed")
        return outcome

    def _derived(self, work: Work, rows: DataFrame, where: str | None) -> DataFrame:
        """What the target holds of these rows, pinned."""
        from microbatch.sink import deletes, history, rewrite

        target = self.flow.writes
        if not isinstance(target, History):
            return rewrite.derived(target, rows)
        told, now = history.tell(rows, target, None), work.now()
        batch = {"job": work.job, "flow": work.flow.name, "query_id": work.query_id, "batch_id": 0}
        history.forget(self.warehouse, target, rows, where)
        history.remember(self.warehouse, target, told, {**batch, "kept_at": now}, again=False)
        if target.delete_when:
            deletes.remember(self.warehouse, target, rows, {**batch, "deleted_at": now})
        return told.rows

    def _work(self) -> Work:
        query_id = f"backfill:{self.run_id}"
        return work_of(self.suite, self.job, self.flow, self.shape, self.input, self.run_id, query_id)

    def _rows(self) -> DataFrame:
        """The input table as far as the checkpoint has read it, as a batch would give it."""
        from pyspark.sql import functions as F

        reader = self.spark.read.format("delta")
        if self.flow.recompute_by:
            return (
                reader.option("versionAsOf", self.version).load(self.input.table.path).withColumn("_row", F.struct("*"))
            )
        if self.input.changes and not isinstance(self.flow.writes, Upsert):
            reader = reader.option("readChangeFeed", "true").option("startingVersion", 0)
            return self.input.rows(reader.option("endingVersion", self.version).load(self.input.table.path))
        rows = reader.option("versionAsOf", self.version).load(self.input.table.path)
        if self.input.changes:  # the state is what its changes amount to: each row once, as it was last put in
            at = next(commit["timestamp"] for commit in self.input.table.commits() if commit["version"] <= self.version)
            as_change = {"_change_type": F.lit("insert"), "_commit_version": F.lit(self.version)}
            rows = rows.withColumns({**as_change, "_commit_timestamp": F.timestamp_millis(F.lit(at))})
        return self.input.rows(rows)

    def _only(self, shaped: DataFrame, where: str | None) -> DataFrame:
        if where is None:
            return shaped
        try:
            chosen = shaped.where(where)
            chosen.schema  # noqa: B018  its analysis shows a name that is none
            return chosen
        except Exception as cause:
            what = f"is not SQL over the columns of {self.flow.writes.table}: {str(cause).splitlines()[0]}"
            raise ConfigError(Problem("--where", what)) from cause

    def _count(self, where: str | None) -> int:
        rows = self.spark.read.format("delta").load(Table(self.warehouse, self.flow.writes.table).path)
        return rows.where(where).count() if where else rows.count()

    def _open_letters(self) -> list[Any]:
        """The open letters of rows this derives again: those that are still bad get new ones."""
        filters = [
            ("job", "=", self.job.name),
            ("flow", "=", self.flow.name),
            ("kind", "=", "row"),
            ("status", "=", "open"),
        ]
        return [letter["id"] for letter in ops.rows(self.warehouse, "quarantine", filters)]
