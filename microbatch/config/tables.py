"""What can be wrong between the flows of a suite: two writers, no writer, a cycle, rows that vanish without a word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from microbatch.config.names import hint
from microbatch.errors import Problem
from microbatch.job import Flow, History, Replace, Upsert, in_order, snapshots_of


class Placed(NamedTuple):
    """A flow, the job it belongs to, and the file and line it stands at."""

    job: str
    flow: Flow
    where: str

    def problem(self, what: str) -> Problem:
        """A problem of this flow."""
        return Problem(self.where, f"flow {self.flow.name}: {what}")


def suite_problems(placed: Sequence[Placed], *, complete: bool) -> Iterator[Problem]:
    """The problems between flows, none of which has a problem of its own shape.

    Args:
        placed: the flows of all jobs.
        complete: whether these are all flows of the suite; if not, a table without a writer is not reported.
    """
    writers: dict[str, Placed] = {}
    for each in placed:
        first = writers.setdefault(each.flow.writes.table, each)
        if first is not each:
            yield each.problem(
                f"{each.flow.writes.table} is written by flow {first.flow.name} of job {first.job} already; "
                "a table has one writer"
            )
    for each in placed:
        yield from _input_problems(each, writers, complete)
    left = dict(writers)
    while left:
        try:
            in_order([each.flow for each in left.values()])
            return
        except ValueError as cycle:
            tables = str(cycle).split(" <- ")
            yield left[tables[0]].problem(f"a cycle of tables: {cycle}")
            for table in set(tables):
                del left[table]


def _input_problems(each: Placed, writers: dict[str, Placed], complete: bool) -> Iterator[Problem]:
    for name, snapshot in snapshots_of(each.flow).items():
        if snapshot.table not in writers and complete:
            what = f"snapshot {name}: no flow writes {snapshot.table}{hint(snapshot.table, writers)}"
            yield each.problem(what)
    table = each.flow.reads
    if not isinstance(table, str):
        return
    if table not in writers:
        if complete:
            near = hint(table, writers)
            yield each.problem(
                f"no flow writes {table}{near}; what comes from outside is a Source(...)"
                if "did you mean" not in near
                else f"no flow writes {table}{near}"
            )
    elif (
        _can_lose_rows(writers[table].flow)
        and isinstance(each.flow.writes, Upsert | History)
        and each.flow.writes.delete_when is None
    ):
        yield each.problem(
            f"{table} can lose rows, so say what a delete does: give {type(each.flow.writes).__name__} a delete_when, "
            "such as delete_when=\"_op = 'delete'\""
        )


def _can_lose_rows(writer: Flow) -> bool:
    """Whether rows can vanish from what a flow writes; readers that recompute groups see that by themselves."""
    target = writer.writes
    # A late version splits an interval, so a History rewrites rows it wrote before.
    return isinstance(target, Replace | History) or (isinstance(target, Upsert) and target.delete_when is not None)
