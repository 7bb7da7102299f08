"""`microbatch quarantine replay` and `discard`: the recorded input through today's transform and rules, once.

A replayed letter's row is committed with the letter's id in the commit, and the letter is marked after it: killed in between,
the next replay finds the id in the table's log, and only makes up for the ledger's row and the mark. A letter that fails again
stays open under its id.

Letters are no batch: a rule over a whole one, or the share of rows that `mostly` asks for, says nothing of a handful of rows
from many batches, so each row is judged by itself, and no result of such a rule is recorded. A mended file and groups that are
made anew are batches of their own: where such a rule fails nothing of them is written, and their letters say so.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from microbatch import empty
from microbatch.commands.quarantine import Letters
from microbatch.commands.render import columns
from microbatch.commands.replayable import OF_FILE, of_finished_batches, settle
from microbatch.errors import ExpectationStopped
from microbatch.job import Flow
from microbatch.quarantine import mark, these
from microbatch.runner.flows import work_of
from microbatch.runner.inputs import input_of
from microbatch.runner.lock import held
from microbatch.runner.report import run_id
from microbatch.sink import exact, ops
from microbatch.sink.tables import Table
from microbatch.sources import Files, TableInput
from microbatch.sources.listing import look_at

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from microbatch.work import Kept, Work

MOST_AT_ONCE = 5_000  # letters of one commit: their ids travel in it
COLUMNS = "id, flow, kind, payload, batch_id, query_id, reasons, attempts"


def discard(letters: Letters) -> int:
    """Mark open letters as discarded: somebody decided that they are not wanted. They stay to be read."""
    chosen = letters.query("id", only="status = 'open'")
    with held(letters.suite.environment.storage["checkpoints"], letters.job.name):
        mark(_stored(letters), [letter["id"] for letter in chosen], "discarded")
    print(f"{letters.job.name}: {len(chosen):,} letters discarded")
    return 0


def replay(letters: Letters, reached: Callable[[str, int], None] = lambda step, batch_id: None) -> int:
    """Send the input of open letters through today's transform and rules, flow by flow, and print what became of them.

    Letters of a batch that is unfinished are left to its run, which takes their rows in by itself.

    Args:
        reached: told of each step of each batch of letters as it is done, as a run's is; what it raises is a crash there.

    Raises:
        StateChanged: all the letters are of unfinished batches, or a checkpoint does not fit its table; nothing was replayed.
        MicrobatchError: what stopped a flow; letters of flows before it are replayed. No expectation does: its letters say so.
    """
    suite, job, rows = letters.suite, letters.job, []
    with held(suite.environment.storage["checkpoints"], job.name):
        settle(letters)
        chosen = letters.query(COLUMNS, "ORDER BY quarantined_at, id", only="status = 'open' AND kind <> 'batch'")
        if not chosen:
            print(f"{job.name}: no open letters to replay; a stuck batch is replayed by running the job")
            return 0
        chosen = of_finished_batches(letters, chosen)
        for flow in job.flows:
            mine = [letter for letter in chosen if letter["flow"] == flow.name]
            if mine:
                rows.append(_Replay(letters, flow, reached).all(mine))
    print(columns(("flow", "letters", "replayed", "still open"), rows))
    return 0


class _Replay:
    """The replay of one flow's letters."""

    def __init__(self, letters: Letters, flow: Flow, reached: Callable[[str, int], None]) -> None:
        from microbatch.commands.plan import shaped

        self.suite, self.job, self.flow, self.stored = letters.suite, letters.job, flow, _stored(letters)
        self.warehouse = self.suite.environment.storage["warehouse"]
        self.spark, shapes = shaped(self.suite, self.job)
        self.run_id = run_id()
        self.shape = shapes[self.job.name, flow.name]
        self.input = input_of(self.suite, self.job, flow)
        self.reached, self.commits = reached, 0

    def all(self, letters: Sequence[dict[str, Any]]) -> list[object]:
        """Replay them; the flow's line of the closing table."""
        done: set[str] = set()
        kinds = {kind: [each for each in letters if each["kind"] == kind] for kind in ("row", "parse", "file")}
        if self.flow.recompute_by:
            done |= self._groups(kinds["row"])
        else:
            texts = self._readable([*kinds["row"], *kinds["parse"]])
            for start in range(0, len(texts), MOST_AT_ONCE):
                done |= self._rows(texts[start : start + MOST_AT_ONCE])
        done |= self._files(kinds["file"])
        return [f"{self.job.name}.{self.flow.name}", len(letters), len(done), len(letters) - len(done)]

    def _readable(self, letters: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The letters that hold their input: all, or none where a source masks columns."""
        mask = ", ".join(self.job.mask)
        if mask and letters:
            told = f"{len(letters):,} letters of {self.flow.name} stay open: they do not hold the masked {mask}"
            print(f"{told}; land the mended rows under a new name, and discard them", file=sys.stderr)
        return [] if mask else letters

    def _work(self, suffix: str = "") -> Work:
        """A batch beside the checkpoint: its own key, the same steps."""
        self.commits += 1
        query_id = f"{ops.REPLAY}{self.run_id}{suffix}"
        work = work_of(self.suite, self.job, self.flow, self.shape, self.input, self.run_id, query_id)
        return replace(work, reached=self.reached)

    def _rows(self, letters: Sequence[dict[str, Any]]) -> set[str]:
        from microbatch import batch, quarantine

        work = self._work()
        work = replace(work, shape=replace(self.shape, plan=self.shape.plan.of_rows()))
        kept = self._kept(work, _counted(self._parsed(letters)))
        judged, kept = batch.pin(work, kept, self.spark)
        failing: dict[str, list[dict[str, str]]] = {}
        if judged.leaving:
            left = quarantine.of_rows(judged.rows, work.shape.plan.leaves, work.shape.plan.reasons())
            failing |= {row["payload"]: row["reasons"] for row in left.toArrow().to_pylist()}
        if judged.unparsed:
            failing |= {row["payload"]: row["reasons"] for row in quarantine.of_text(kept.rows).toArrow().to_pylist()}
        passed = {letter["id"] for letter in letters} - failing.keys()
        batch.write(replace(work, letters=tuple(sorted(passed))), kept, judged)
        mark(self.stored, sorted(passed), "replayed")
        self._failed_again([letter for letter in letters if letter["id"] in failing], failing)
        return passed

    def _groups(self, letters: Sequence[dict[str, Any]]) -> set[str]:
        """A recomputing flow: the letters' groups are derived anew as of now; what is bad in them gets new letters."""
        if not letters:
            return set()
        assert isinstance(self.input, TableInput)
        work = self._work("/groups")
        version = self.input.table.version() or 0
        end = json.dumps({"reservoirVersion": version + 1, "index": -1})
        keys = empty.frame(self.spark, self.shape.input).select(*self.flow.recompute_by).schema
        texts = self.spark.createDataFrame([(letter["payload"],) for letter in letters], "payload STRING")
        from pyspark.sql import functions as F

        groups = texts.select(F.from_json("payload", keys, exact.OPTIONS).alias("g")).select("g.*").distinct()
        pinned = groups.localCheckpoint(eager=True)
        count = pinned.count()
        rows = self.input.of_groups(self.spark, pinned, count, end)
        kept = replace(self._kept(work, (rows, None)), groups=pinned, changes=count)
        return self._batch(work, kept, letters)

    def _files(self, letters: Sequence[dict[str, Any]]) -> set[str]:
        """Files that were mended: read whole, as a batch of their own; their bad rows get letters of their own."""
        if not letters or not isinstance(self.input, Files):
            return set()
        source, done = self.input, set()
        for letter in letters:
            path = str(json.loads(letter["payload"])["path"])
            file = [found] if (found := look_at(path)) else []
            why = (
                {**source.suspicious(self.spark, file), **source.broken(self.spark, file)}
                if file
                else {path: "it is not there"}
            )
            if why:
                reason = {"expectation": "read", "column": "", "severity": "critical", "message": why[path]}
                self._failed_again([letter], {letter["id"]: [reason]})
                continue
            work = self._work(f"{OF_FILE}{letter['id']}")
            kept = replace(self._kept(work, _counted(source.rows(self.spark, file))), files=tuple(file))
            done |= self._batch(work, kept, [letter])
        return done

    def _batch(self, work: Work, kept: Kept, letters: Sequence[dict[str, Any]]) -> set[str]:
        """What these letters stand for, as a batch: its bad rows get letters of their own. None is done where a rule stops it."""
        from microbatch import batch

        ids = [letter["id"] for letter in letters]
        try:
            judged, kept = batch.pin(work, kept, self.spark)
        except ExpectationStopped as stopped:
            reason = {"expectation": "batch", "column": "", "severity": "critical"}
            reasons = [{**reason, "message": failure} for failure in stopped.failures]
            self._failed_again(letters, dict.fromkeys(ids, reasons))
            return set()
        batch.divert(work, kept, judged)
        batch.write(replace(work, letters=tuple(ids)), kept, judged)
        mark(self.stored, ids, "replayed")
        return set(ids)

    def _kept(self, work: Work, counted: tuple[DataFrame, Any]) -> Kept:
        from microbatch.work import Kept

        rows, count = counted
        return Kept(self.commits, datetime.now(timezone.utc), "", "", rows, count)

    def _parsed(self, letters: Sequence[dict[str, Any]]) -> DataFrame:
        """The letters' rows as their source gives them; `_row` and `_unparsed` hold the letter's id."""
        from pyspark.sql import functions as F

        from microbatch.sources.letters import completed

        values = [(letter["id"], letter["kind"], letter["payload"]) for letter in letters]
        texts = self.spark.createDataFrame(values, "_letter STRING, kind STRING, value STRING")
        rows, id_ = completed(self.input.of_letters(texts, self.shape.input), self.shape.input), F.col("_letter")
        return rows.withColumns({"_row": id_, "_unparsed": F.when(F.col("_unparsed").isNotNull(), id_)}).drop("_letter")

    def _failed_again(self, letters: Sequence[dict[str, Any]], reasons: dict[str, list[dict[str, str]]]) -> None:
        """They stay open, with today's reasons and one attempt more."""
        if not letters:
            return
        import pyarrow as pa

        ids = [letter["id"] for letter in letters]
        whole = {row["id"]: row for row in ops.rows(self.warehouse, "quarantine", [("id", "in", ids)])}
        once_more = [
            {"reasons": reasons[id_], "attempts": whole[id_]["attempts"] + 1, "run_id": self.run_id} for id_ in ids
        ]
        records = [{**whole[id_], **changed} for id_, changed in zip(ids, once_more, strict=True)]
        data = pa.Table.from_pylist(records, schema=ops.schema("quarantine"))
        ops.write(self.stored, data, predicate=these(ids))


def _counted(rows: DataFrame) -> tuple[DataFrame, Any]:
    from pyspark.sql import Observation
    from pyspark.sql import functions as F

    count = Observation("read")
    unparsed = F.count(F.when(F.col("_unparsed").isNotNull(), 1)).alias("unparsed")
    return rows.observe(count, F.count(F.lit(1)).alias("read"), unparsed), count


def _stored(letters: Letters) -> Table:
    return Table(letters.suite.environment.storage["warehouse"], "ops.quarantine")
