"""`microbatch audit`: prove from the tables that nothing was lost or doubled.

Reads logs and the ledger by deltalake, no JVM. Each line is an equation; a false one is a row that somebody or something
removed, doubled or added beside the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from microbatch.config import LoadedJob, Suite
from microbatch.job import Append, Flow, Source, Upsert
from microbatch.runner.accept import query_id, starting_version
from microbatch.runner.cut import known_ids
from microbatch.runner.inputs import input_of
from microbatch.sink import ops
from microbatch.sink.tables import HARMLESS, Table, outcome_of, rewound_by
from microbatch.sources.files import Files
from microbatch.sources.record import Record
from microbatch.sources.tables import end_version, numbered, offsets


@dataclass(frozen=True)
class Equation:
    """Two numbers that must be equal, and what each counts."""

    flow: str
    left: str
    left_count: int
    right: str
    right_count: int

    @property
    def holds(self) -> bool:
        return self.left_count == self.right_count

    def __str__(self) -> str:
        sign, verdict = ("=", "ok") if self.holds else ("<>", "FAILED")
        return f"{verdict:6}  {self.flow}: {self.left} {self.left_count:,} {sign} {self.right_count:,} {self.right}"


def execute(suite: Suite, job: LoadedJob) -> int:
    """Print the equations of each flow; 1 where one fails."""
    good = True
    for flow in job.flows:
        for finding in findings(suite, job, flow):
            print(finding)
            good = good and (isinstance(finding, Equation) and finding.holds)
    total = sum(each["rows_read"] for each in _ledger(suite, job))
    print(
        f"{job.name}: {'every row is accounted for' if good else 'NOT every row is accounted for'} ({total:,} rows read in all)"
    )
    return 0 if good else 1


def findings(suite: Suite, job: LoadedJob, flow: Flow) -> Iterator[Equation | str]:
    """The equations of a flow, and a sentence for each commit of its target that is not the engine's."""
    warehouse = suite.environment.storage["warehouse"]
    ledger = [each for each in _ledger(suite, job) if each["flow"] == flow.name]
    target = Table(warehouse, flow.writes.table)
    if not ledger and not target.exists():
        yield Equation(flow.name, "rows read", 0, "rows in a table that is not there yet", 0)
        return
    total = (
        {name: sum(each[name] for each in ledger) for name in ledger[0] if name.startswith("rows_")} if ledger else {}
    )
    sums = {name: total.get(name, 0) for name in ops.TABLES["batches"] if name.startswith("rows_")}
    if not flow.recompute_by:
        right = "unparsed + transformed"
        yield Equation(flow.name, "read", sums["rows_read"], right, sums["rows_unparsed"] + sums["rows_transformed"])
    found = sums["rows_written"] + sums["rows_quarantined"] + sums["rows_superseded"]
    yield Equation(flow.name, "transformed", sums["rows_transformed"], "written + quarantined + superseded", found)
    yield from _letters(suite, job, flow, ledger)
    yield from _target(suite, job, flow, target, ledger)
    yield from _input(suite, job, flow, ledger)


def _ledger(suite: Suite, job: LoadedJob) -> list[dict[str, Any]]:
    return ops.rows(suite.environment.storage["warehouse"], "batches", [("job", "=", job.name)])


def _letters(suite: Suite, job: LoadedJob, flow: Flow, ledger: list[dict[str, Any]]) -> Iterator[Equation | str]:
    """Each row that left has its letter. A replay of rows writes no letters: those that fail again stay under their ids."""
    filters = [("job", "=", job.name), ("flow", "=", flow.name)]
    only = ("kind", "query_id", "batch_id")
    letters = ops.rows(suite.environment.storage["warehouse"], "quarantine", filters, only)
    if any(each["query_id"] == ops.FOLDED for each in ledger):  # letters of batches that were folded may be gone
        ledger = [each for each in ledger if each["query_id"] != ops.FOLDED]
        batches = {(each["query_id"], each["batch_id"]) for each in ledger}
        letters = [letter for letter in letters if (letter["query_id"], letter["batch_id"]) in batches]
    for kind, column in (("row", "rows_quarantined"), ("parse", "rows_unparsed")):
        left = sum(each[column] for each in ledger if not is_replay_of_rows(each["query_id"]))
        count = sum(letter["kind"] == kind for letter in letters)
        yield Equation(flow.name, column.replace("rows_", ""), left, f"letters of kind {kind}", count)


def is_replay_of_rows(query_id: str) -> bool:
    """Whether a ledger row is of letters that were replayed under their own ids."""
    return query_id.startswith("replay:") and "/" not in query_id


def _target(
    suite: Suite, job: LoadedJob, flow: Flow, target: Table, ledger: list[dict[str, Any]]
) -> Iterator[Equation | str]:
    """What the table holds is what this and other flows' commits put there, and each commit is the engine's."""
    if not target.exists():
        yield Equation(
            flow.name,
            "written",
            sum(each["rows_written"] for each in ledger),
            f"rows in {target.name}, which is not there",
            0,
        )
        return
    opened = target.open()
    in_table = sum(opened.get_add_actions(flatten=True).column("num_records").to_pylist())
    log = [(commit, outcome_of(commit)) for commit in target.commits()]
    others = [outcome for _, outcome in log if outcome and (outcome.job, outcome.flow) != (job.name, flow.name)]
    folded = max((b["target_version"] or 0 for b in ledger if b["query_id"] == ops.FOLDED), default=-1)
    oldest = max(
        folded + 1, min((c["version"] for c, _ in log), default=0)
    )  # of older ones log or ledger knows too little
    mine = {
        (o.query_id, o.batch_id)
        for commit, o in log
        if o and (o.job, o.flow) == (job.name, flow.name) and commit["version"] >= oldest
    }
    for commit, outcome in log:
        if outcome is None and commit.get("operation") not in HARMLESS and not rewound_by(commit):
            told = f"version {commit['version']} of {target.name} ({commit.get('operation')})"
            yield f"FAILED  {flow.name}: {told} is not a commit of the engine"
    net = sum(each["rows_inserted"] - each["rows_deleted"] for each in ledger)
    net += sum(outcome.rows_inserted - outcome.rows_deleted for outcome in others)
    yield Equation(flow.name, "inserted - deleted", net, f"rows in {target.name}", in_table)
    wrote = [each for each in ledger if each["target_version"] is not None and each["target_version"] >= oldest]
    keyed = {(each["query_id"], each["batch_id"]) for each in wrote}
    yield Equation(flow.name, "batches that wrote", len(keyed), f"commits of {target.name}", len(keyed & mine))
    yield Equation(flow.name, f"commits of {target.name}", len(mine), "that are in the ledger", len(mine & keyed))


def _input(suite: Suite, job: LoadedJob, flow: Flow, ledger: list[dict[str, Any]]) -> Iterator[Equation | str]:
    """What a flow read is what the flow before it wrote, up to the version it has read to; of files, those its log took in; of
    any other source, all between the offsets of its first and its last batch. Of a batch that is planned and not done, as a run
    that was stopped leaves it, nothing is expected yet."""
    source = input_of(suite, job, flow)
    current = query_id(source.checkpoint)
    mine = [each for each in ledger if each["query_id"] in (*known_ids(source.checkpoint, current), ops.FOLDED)]
    done = max((each["batch_id"] for each in mine if each["query_id"] == current), default=-1)
    done = max(done, *numbered(source.checkpoint / "commits"), -1)
    if isinstance(source, Files):
        recorded = Record(source.checkpoint).batches(done)
        count = sum(each["batch_id"] if each["query_id"] == ops.FOLDED else 1 for each in mine)
        yield Equation(flow.name, "batches in the ledger", count, "batches of files recorded", recorded)
        return
    if isinstance(flow.reads, Source):
        mine.sort(key=lambda each: each["started_at"])
        joined = sum(each["source_start"] == before["source_end"] for before, each in pairwise(mine)) + bool(mine)
        yield Equation(flow.name, "batches in the ledger", len(mine), "that begin where the one before ended", joined)
        return
    writer_job, writer = suite.writer_of(flow.reads)
    if flow.recompute_by or not isinstance(writer.writes, Append | Upsert) or done < 0:
        return
    since, upto = starting_version(source.checkpoint) or 0, end_version(offsets(source.checkpoint, done))
    filters = [("job", "=", writer_job), ("flow", "=", writer.name)]
    batches = ops.rows(suite.environment.storage["warehouse"], "batches", filters)
    wrote = [each for each in batches if each["target_version"] is not None and since <= each["target_version"] <= upto]
    changed = sum(each["rows_inserted"] + each["rows_updated"] + each["rows_deleted"] for each in wrote)
    read = sum(each["rows_read"] for each in mine)
    yield Equation(
        flow.name, "read", read, f"rows that {writer.name} changed in {flow.reads} up to version {upto}", changed
    )
