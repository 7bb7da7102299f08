"""One flow's target derived again: all of its input table read at once, through the steps of a batch.

Its key is the backfill's id and the flow's number in it. The target's commit names the letters whose rows it derived; an attempt
after it only does what is left: the ledger, the letters' status, the reader's checkpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from microbatch.config import LoadedJob, Suite
from microbatch.errors import ConfigError, Problem, StateChanged
from microbatch.job import Flow, History, Upsert
from microbatch.quarantine import mark
from microbatch.runner.accept import begun_by, start_anew, starting_version
from microbatch.runner.flows import work_of
from microbatch.runner.handshake import shake
from microbatch.runner.inputs import checkpoint_of, input_of, reads_of
from microbatch.sink import ops
from microbatch.sink.tables import Table
from microbatch.sources import TableInput
from microbatch.sources.tables import end_version, last_offset

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from microbatch.outcome import Outcome
    from microbatch.work import Judged, Kept, Work


class Deriving:
    """The backfill of one flow.

    Args:
        run_id: of the backfill.
        number: of the flow in it. The first is derived from what its checkpoint has read; a reader, of a table that was just
            derived, from all that its input holds, and begins behind it.
        again: whether an earlier attempt may have done some of it.

    Attributes:
        has_all_ahead: the reader never ran: its first run takes in all that its input holds.

    Raises:
        StateChanged: a batch is unfinished, nothing was read yet, or checkpoint and table do not fit.
        ConfigError: the job has mistakes.
    """

    def __init__(
        self,
        suite: Suite,
        job: LoadedJob,
        flow: Flow,
        run_id: str,
        number: int,
        again: bool,
        reached: Callable[[str], None],
    ) -> None:
        from microbatch.commands.plan import shaped

        self.suite, self.job, self.flow = suite, job, flow
        self.run_id, self.number, self.again = run_id, number, again
        self.reached = lambda step: reached(f"{step} {flow.name}")
        self.warehouse = suite.environment.storage["warehouse"]
        self.checkpoint = checkpoint_of(suite, job, flow)
        self.target = Table(self.warehouse, flow.writes.table)
        self.query_id = f"backfill:{run_id}"
        input_ = input_of(suite, job, flow)
        assert isinstance(input_, TableInput)
        self.input = input_
        self.done = again and self.target.last_batch(self.query_id) is not None
        self.read = None if self.done else self._read()
        self.has_all_ahead = number > 0 and not self.done and self.read is None and not self.target.exists()
        if self.read is None and not self.done and not self.has_all_ahead:
            raise self._first("it has read nothing yet")
        self.spark, shapes = shaped(suite, job)
        self.shape = shapes[job.name, flow.name]

    def run(self, where: str | None, begin: Callable[[], None]) -> list[object]:
        """Derive the target, and let a reader go on behind what it was derived from; the flow's line of the closing table.

        Args:
            where: heeded by the first flow only.
            begin: called before anything is written.
        """
        outcome = self._finished() if self.done else self._derive(None if self.number else where, begin)
        if self.number and begun_by(self.checkpoint) != self.run_id:
            start_anew(self.checkpoint, self.run_id, starting_version=self._held() + 1)
            self.reached("checkpoint")
        changed = (outcome.rows_inserted, outcome.rows_updated, outcome.rows_deleted)
        counts = (outcome.rows_read, outcome.rows_written, outcome.rows_quarantined, *changed)
        return [f"{self.job.name}.{self.flow.name}", self.target.name, *counts]

    def _read(self) -> int | None:
        """The version of the input that the checkpoint has read; None for one that has read nothing."""
        standing = shake(
            self.warehouse, self.checkpoint, self.job, self.flow, reads_of(self.suite, self.job, self.flow)
        )
        if standing.unfinished:
            raise self._first(f"batch {standing.planned} is unfinished")
        if offset := last_offset(self.checkpoint):
            return end_version(offset)
        begins = starting_version(self.checkpoint)
        return None if begins is None else begins - 1

    def _first(self, what: str) -> StateChanged:
        return StateChanged(self.flow.name, what, f"run `microbatch run {self.job.name}` first")

    def _held(self) -> int:
        """The version of the input now; nobody writes to it, its job is locked."""
        return self.input.table.version() or 0

    def _finished(self) -> Outcome:
        """What is left of a flow whose target an earlier attempt has committed."""
        from microbatch import batch

        outcome = batch.committed(self._work(), self.number)
        assert outcome is not None
        return outcome

    def _derive(self, where: str | None, begin: Callable[[], None]) -> Outcome:
        """Read, shape, judge and divert as a batch does, then put the result in the table's place."""
        from microbatch import batch
        from microbatch.sink import rewrite, targets
        from microbatch.work import Kept, outcome_of

        work, target = self._work(), self.flow.writes
        version = self._held() if self.number else self.read
        assert version is not None
        groups = self.spark.range(0) if self.flow.recompute_by else None
        kept = Kept(self.number, work.now(), "", "", self._rows(version), None, groups=groups)
        judged = self._judged(work, kept, where)
        work = replace(work, letters=self._stale(work, kept, where))
        begin()
        batch.divert(work, kept, judged)
        self.reached("letters")
        result = self._result(work, batch.good(work, judged), where)
        total, leaving = judged.transformed, judged.leaving
        written = result.count() if isinstance(target, Upsert) else total - leaving
        outcome = replace(
            outcome_of(work, kept, judged, written),
            rows_superseded=total - leaving - written,
            rows_deleted=0 if isinstance(target, Upsert) else self._count(where),
        )
        commit = targets.Commit(work.query_id, self.number, outcome.to_json(), {}, work.properties)
        rewrite.write(target, work.target, result, commit, where)
        self.reached("target")
        outcome = batch.of_commit(work, outcome)
        ops.record(self.warehouse, outcome)
        self.reached("ledger")
        mark(Table(self.warehouse, "ops.quarantine"), outcome.letters, "replayed")
        return outcome

    def _work(self) -> Work:
        work = work_of(self.suite, self.job, self.flow, self.shape, self.input, self.run_id, self.query_id)
        return replace(work, planned=self.number) if self.again else work

    def _rows(self, version: int) -> DataFrame:
        """The input table as of a version, as a batch would give it."""
        from pyspark.sql import functions as F

        reader = self.spark.read.format("delta")
        if self.flow.recompute_by:
            return reader.option("versionAsOf", version).load(self.input.table.path).withColumn("_row", F.struct("*"))
        if self.input.changes and not self._from_state():
            reader = reader.option("readChangeFeed", "true").option("startingVersion", 0)
            return self.input.rows(reader.option("endingVersion", version).load(self.input.table.path))
        rows = reader.option("versionAsOf", version).load(self.input.table.path)
        if self.input.changes:  # the state is what its changes amount to: each row once, as it was last put in
            at = next(commit["timestamp"] for commit in self.input.table.commits() if commit["version"] <= version)
            as_change = {"_change_type": F.lit("insert"), "_commit_version": F.lit(version)}
            rows = rows.withColumns({**as_change, "_commit_timestamp": F.timestamp_millis(F.lit(at))})
        return self.input.rows(rows)

    def _judged(self, work: Work, kept: Kept, where: str | None) -> Judged:
        from pyspark.sql import Observation

        from microbatch import batch
        from microbatch.work import Judged

        counts = Observation("backfill")
        shaped = self._only(batch.shape(work, kept, self.spark), where)
        pinned = batch.judge(work, shaped, counts).localCheckpoint(eager=True)
        found = counts.get
        total, leaving = found["transformed"], found["leaving"]
        results = batch.results_of(work, pinned, found)
        batch.refuse_stops(work, self.number, results)
        return Judged(pinned, total, 0, total, leaving, found["deleting"], {}, results)

    def _result(self, work: Work, rows: DataFrame, where: str | None) -> DataFrame:
        """What the target holds of these rows, pinned; what it cannot show of them takes the place of what is remembered.

        Before the target's commit, and begun again by an attempt after a kill: until it is done, nothing else reads that.
        """
        from microbatch.sink import deletes, history, rewrite

        target, now = self.flow.writes, work.now()
        batch = {"job": work.job, "flow": work.flow.name, "query_id": work.query_id, "batch_id": self.number}
        if isinstance(target, Upsert | History):
            # The state of a table holds no row of a key that was deleted from it: only memory knows of that.
            all_of_them = where is None and not self._from_state()
            deletes.forget(self.warehouse, target, None if all_of_them else rows)
            if target.delete_when and target.newest_by:
                deletes.remember(self.warehouse, target, rows, {**batch, "deleted_at": now}, self.again)
        self.reached("memory")
        if not isinstance(target, History):
            return rewrite.derived(target, rows)
        told = history.tell(rows, target, None)
        history.forget(self.warehouse, target, rows, where)
        history.remember(self.warehouse, target, told, {**batch, "kept_at": now}, self.again)
        return told.rows

    def _from_state(self) -> bool:
        """Whether a table is read as it is now, though its reader takes in its changes."""
        return self.input.changes and isinstance(self.flow.writes, Upsert)

    def _only(self, shaped: DataFrame, where: str | None) -> DataFrame:
        if where is None:
            return shaped
        try:
            chosen = shaped.where(where)
            chosen.schema  # noqa: B018  its analysis shows a name that is none
            return chosen
        except Exception as cause:
            what = f"is not SQL over the columns of {self.target.name}: {str(cause).splitlines()[0]}"
            raise ConfigError(Problem("--where", what)) from cause

    def _count(self, where: str | None) -> int:
        if not self.target.exists():  # all rows left so far
            return 0
        rows = self.spark.read.format("delta").load(self.target.path)
        return rows.where(where).count() if where else rows.count()

    def _stale(self, work: Work, kept: Kept, where: str | None) -> tuple[str, ...]:
        """The open letters of rows that are derived again: those that are still bad get new ones."""
        filters = [("job", "=", work.job), ("flow", "=", work.flow.name), ("kind", "=", "row"), ("status", "=", "open")]
        found = ops.rows(self.warehouse, "quarantine", filters, ("id", "payload", "query_id", "batch_id"))
        own = (work.query_id, kept.batch_id)  # those of an earlier attempt, which this one writes again
        letters = {each["id"]: each["payload"] for each in found if (each["query_id"], each["batch_id"]) != own}
        if where is None or not letters:
            return tuple(letters)
        if work.mask:
            print(
                f"{len(letters):,} letters of {work.flow.name} stay open: they do not hold the masked "
                f"{', '.join(work.mask)}, so nobody knows which --where is true for",
                file=sys.stderr,
            )
            return ()
        return self._under(work, kept, letters, where)

    def _under(self, work: Work, kept: Kept, letters: dict[str, str], where: str) -> tuple[str, ...]:
        """The letters, by id, whose row falls under `where` once it is transformed."""
        from pyspark.sql import functions as F

        from microbatch import batch
        from microbatch.sink import exact
        from microbatch.sources.letters import completed

        texts = self.spark.createDataFrame(list(letters.items()), "_letter STRING, value STRING")
        if work.flow.recompute_by:  # a group's letter holds the row as it came out
            output = F.from_json("value", work.shape.output, exact.OPTIONS).alias("_json")
            rows = texts.select(F.col("_letter").alias("_row"), output).select("_row", "_json.*")
        else:
            read = completed(self.input.of_letters(texts, work.shape.input), work.shape.input).drop("_letter")
            rows = batch.shape(work, replace(kept, rows=read), self.spark)
        return tuple(row["_row"] for row in rows.where(where).select("_row").collect())
