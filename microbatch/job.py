"""What runs: the frozen records a job is declared with. No Spark, no files, no clock.

A job is data. `problems` says what is wrong with it, all at once; `in_order` puts its flows in the order their tables
require. Everything else (where, how fast, what is good) is conf and expectations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Evolve = Literal["fail", "add_columns"]
Columns = Sequence[str]  # one name is a Sequence[str] too, so both forms type-check; kept as a tuple


class _Tidy:
    """Keeps each list of columns as a tuple, whether one name, a list or None was given: records must be hashable."""

    def __post_init__(self) -> None:
        for name in ("keys", "newest_by", "track", "cluster_by", "partition_by", "recompute_by"):
            given = getattr(self, name, None)
            tidy = (given,) if isinstance(given, str) else tuple(given or ())
            if hasattr(self, name):
                object.__setattr__(self, name, tidy)


@dataclass(frozen=True)
class Source:
    """Something outside the warehouse that is read. Where it is and how fast it is read is said in conf.

    Args:
        name: the key under `sources` in `conf/base/<job>.yml`.
        schema: DDL of its rows, for instance "order_id BIGINT, amount DECIMAL(12,2)". A value that does not fit makes
            the row unparsed: it goes to quarantine with its text, never on as a null.
    """

    name: str
    schema: str


@dataclass(frozen=True)
class Snapshot:
    """A table read whole, as of the start of the micro-batch: a dimension.

    Args:
        table: a table of this suite.
        min_rows: fewer rows stop the flow with exit 5; 0 allows an empty one.
        max_age_h: hours since the last commit that changed the table's rows; an older one stops the flow with exit 5.
    """

    table: str
    min_rows: int = 1
    max_age_h: float | None = None


@dataclass(frozen=True)
class Append(_Tidy):
    """Add the rows of each micro-batch, once.

    Guarantee:
        Exactly once a micro-batch: the commit carries the checkpoint's query id and the batch id (Delta's transaction
        identifiers). The same content under a new file name is new input, and is added.

    Args:
        cluster_by, partition_by: columns that lay out the files; at most one of the two.
        evolve: what a new column of the transform does: "fail" or "add_columns".
    """

    table: str
    cluster_by: Columns = ()
    partition_by: Columns = ()
    evolve: Evolve = "fail"


@dataclass(frozen=True)
class Upsert(_Tidy):
    """Keep one row per key: the newest version wins.

    Args:
        keys: columns that identify a row; a null in one of them is a critical failure of that row.
        newest_by: columns that order the versions of a key, null being the oldest; None: the later batch wins. On a tie
            the later batch wins, and inside a batch an order fixed by the row itself.
        delete_when: SQL over the transformed row; a row it is true for deletes its key.
        cluster_by, partition_by, evolve: as for `Append`.

    Guarantee:
        Exactly once, and independent of how rows fall into batches, for all versions that differ in `newest_by`.
    """

    table: str
    keys: Columns = ()
    newest_by: Columns = ()
    delete_when: str | None = None
    cluster_by: Columns = ()
    partition_by: Columns = ()
    evolve: Evolve = "fail"


@dataclass(frozen=True)
class Replace(_Tidy):
    """Rewrite whole groups: all rows of the groups in the micro-batch take the place of those in the table.

    Args:
        keys: the columns that name a group; the same as the flow's `recompute_by`.
        cluster_by, partition_by, evolve: as for `Append`.
    """

    table: str
    keys: Columns = ()
    cluster_by: Columns = ()
    partition_by: Columns = ()
    evolve: Evolve = "fail"


@dataclass(frozen=True)
class History(_Tidy):
    """Keep every version of a key with the time it held: a slowly changing dimension of type 2.

    Adds `valid_from` (the version's `newest_by`), `valid_to` (null: open) and `is_current`. A late version splits the
    interval it falls into; a delete closes the interval.

    Args:
        keys: columns that identify a row; a null in one of them is a critical failure of that row.
        newest_by: the column that says from when a version holds; null is the oldest. On a tie the later batch wins.
        track: the columns whose change opens a new version, others are brought up to date in place; None: all of them.
        delete_when: SQL over the transformed row; a row it is true for ends its key's open interval.
        cluster_by, partition_by, evolve: as for `Append`.

    Guarantee:
        Exactly once, and independent of how versions fall into batches, where they differ in `newest_by`.
    """

    table: str
    keys: Columns = ()
    newest_by: Columns = ()
    track: Columns = ()
    delete_when: str | None = None
    cluster_by: Columns = ()
    partition_by: Columns = ()
    evolve: Evolve = "fail"


Target = Append | Upsert | Replace | History


@dataclass(frozen=True)
class Flow(_Tidy):
    """One streaming query: one streamed input, snapshots, one transform, one expectation suite, one target table.

    Args:
        name: unique in the job; its checkpoint is `<checkpoints>/<job>/<name>`.
        reads: a `Source`, or the name of a table that a flow of this suite writes.
        writes: the target.
        transform: DataFrame -> DataFrame, row for row unless `recompute_by` is given. Its first parameter is the streamed
            input, each further one is named as a key of `snapshots`. None: rows go through as they are.
        expects: the name of an expectation suite, `expectations/<job>/<expects>.yml` or `.json`.
        snapshots: parameter name -> table name or `Snapshot`.
        recompute_by: columns of the input table; the transform gets every row of the groups that changed.
    """

    name: str
    reads: Source | str
    writes: Target
    transform: Callable[..., Any] | None = None
    expects: str | None = None
    snapshots: Mapping[str, Snapshot | str] = field(default_factory=dict)
    recompute_by: Columns = ()


class Job:
    """One pipeline: flows, in any order. Its name is the name of its file.

    Raises:
        TypeError: an argument is not a `Flow`.
    """

    __slots__ = ("flows",)
    flows: tuple[Flow, ...]

    def __init__(self, *flows: Flow) -> None:
        for flow in flows:
            if not isinstance(flow, Flow):
                raise TypeError(f"Job(...) takes flows, not {type(flow).__name__}")
        object.__setattr__(self, "flows", flows)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a Job is frozen: build another")

    def __repr__(self) -> str:
        return f"Job({', '.join(flow.name for flow in self.flows)})"


def snapshots_of(flow: Flow) -> dict[str, Snapshot]:
    """The flow's snapshots by parameter name, each as a `Snapshot`."""
    return {name: Snapshot(given) if isinstance(given, str) else given for name, given in flow.snapshots.items()}


def never_null(flow: Flow) -> tuple[str, ...]:
    """The columns of the target that hold no null: its keys, but those of a rewritten group, which may be null."""
    return tuple(getattr(flow.writes, "keys", ())) if not flow.recompute_by else ()


def tables_read(flow: Flow) -> tuple[str, ...]:
    """The tables a flow reads: its streamed input first, where that is a table, then its snapshots."""
    streamed = (flow.reads,) if isinstance(flow.reads, str) else ()
    return (*streamed, *(snapshot.table for snapshot in snapshots_of(flow).values()))


def in_order(flows: Sequence[Flow]) -> tuple[Flow, ...]:
    """The flows so that each comes after those that write what it reads; otherwise in the order they were declared.

    Raises:
        ValueError: they go in a circle; the message names the tables on it.
    """
    writers = {flow.writes.table: flow for flow in flows}
    done: dict[str, Flow] = {}

    def visit(flow: Flow, path: tuple[str, ...]) -> None:
        if flow.writes.table in path:
            circle = (*path[path.index(flow.writes.table) :], flow.writes.table)
            raise ValueError(" <- ".join(circle))
        if flow.writes.table in done:
            return
        for table in tables_read(flow):
            if table in writers:
                visit(writers[table], (*path, flow.writes.table))
        done[flow.writes.table] = flow

    for flow in flows:
        visit(flow, ())
    return tuple(done.values())
