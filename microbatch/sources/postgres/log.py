"""The copy and the log between two offsets: what Spark asks of a reader of changes, on the driver and on its workers."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from microbatch.errors import SourceUnavailable, StateChanged
from microbatch.places import Place
from microbatch.sources.postgres import catalog
from microbatch.sources.postgres.catalog import Relation
from microbatch.sources.postgres.connection import START_ANEW, Server
from microbatch.sources.postgres.copy import Copy, Spool
from microbatch.sources.postgres.pgoutput import UNSENT, Change, Truncated, Value
from microbatch.sources.postgres.slot import Slot, decoder
from microbatch.sources.postgres.unsent import filled
from microbatch.sources.tables import numbered, offsets

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql.types import StructType

Offset = dict[str, Any]
BLOCK_ROWS = 20_000  # changes that are made into one block of Arrow


@dataclass(frozen=True)
class ChangesReading:
    """The copy, then the changes, between two offsets: `copied` files of the copy, and a position of the log.

    Attributes:
        until: the position this query goes up to.
        waiting: whether changes wait between the newest planned batch and `until`, or may wait where nobody looked.
    """

    server: Server
    slot: Slot
    relation: Relation
    names: tuple[str, ...]
    key: tuple[str, ...]
    copy: Copy
    checkpoint: Place
    until: int
    waiting: bool
    max_rows: int | None

    def first(self) -> Offset:
        return {"copied": 0, "lsn": self.copy.start, "system_identifier": self.copy.system_identifier}

    def end(self, start: Offset, max_rows: int | None) -> Offset:
        release(self.server, self.slot, self.checkpoint)
        copied = start["copied"]
        if copied < len(self.copy.rows):
            taken = self.copy.rows[copied]
            copied += 1
            while copied < len(self.copy.rows) and (max_rows is None or taken + self.copy.rows[copied] <= max_rows):
                taken += self.copy.rows[copied]
                copied += 1
            return {**start, "copied": copied}
        if not self.waiting or start["lsn"] >= self.until:
            return start
        if max_rows is None:
            return {**start, "lsn": self.until}
        with self.server.session() as session:
            look = self.slot.look(
                session, self.relation, start["lsn"], self.until, self.copy.holds, max_rows * 2 + 1_000
            )
        # Nothing so far: all of it is one batch, which takes what there is.
        total, lsn = 0, look.upto if look.waiting else self.until
        for each in look.waiting:
            total, lsn = total + each.changes, each.end
            if total >= max_rows:
                break
        return {**start, "lsn": lsn}

    def parts(self, start: Offset, end: Offset) -> list[tuple[str, int, int]]:
        """`("copy", number, 0)` for each file, or `("changes", after, upto)`: a slot has one reader at a time."""
        if end["copied"] > start["copied"]:
            return [("copy", number, 0) for number in range(start["copied"], end["copied"])]
        return [("changes", start["lsn"], end["lsn"])] if end["lsn"] > start["lsn"] else []

    def blocks(self, part: tuple[str, int, int], schema: StructType) -> Iterator[pa.RecordBatch]:
        what, first, last = part
        yield from self._copied(first, schema) if what == "copy" else self._changed(first, last, schema)

    def done(self, end: Offset) -> None:
        release(self.server, self.slot, self.checkpoint)
        if end["lsn"] > self.copy.start:
            Spool(self.checkpoint).forget()

    def _copied(self, number: int, schema: StructType) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        from microbatch.sources.postgres.values import converted

        at = datetime.fromisoformat(self.copy.at)
        for block in Spool(self.checkpoint).blocks(number):
            op = pa.array(["insert"] * block.num_rows, pa.string())
            lsn = pa.array([self.copy.lsn] * block.num_rows, pa.int64())
            committed = pa.array([at] * block.num_rows, pa.timestamp("us", "UTC"))
            columns = [block.column(name) for name in self.names]
            yield converted(columns, schema, [op, lsn, committed])

    def _changed(self, after: int, upto: int, schema: StructType) -> Iterator[pa.RecordBatch]:
        taken: list[Change] = []
        lacking = False
        for change in self._decoded(after, upto):
            # Whether a row was changed again is known once the transaction is whole.
            if len(taken) >= BLOCK_ROWS and (not lacking or change.xid != taken[-1].xid):
                yield self._block(taken, after, schema)
                taken, lacking = [], False
            taken.append(change)
            lacking = lacking or UNSENT in change.values
        if taken:
            yield self._block(taken, after, schema)

    def _decoded(self, after: int, upto: int) -> Iterator[Change]:
        reader = decoder(self.relation, self.key, after, upto, self.copy.holds)
        statement = f"SELECT (lsn - '0/0')::bigint, data FROM {self.slot.messages(upto)}"
        messages = (
            message
            for block in self.server.batches(statement)
            for message in zip(block.column(0).to_pylist(), block.column(1).to_pylist(), strict=True)
        )
        try:
            yield from reader.changes(messages)
        except Truncated:
            what = (
                f"source {self.server.source}: {self.relation.shown} was truncated, and nobody says which rows are gone"
            )
            raise StateChanged(self.server.flow, what, START_ANEW) from None

    def _last(self, key: tuple[str, ...], after: int, upto: int) -> dict[tuple[Value, ...], int]:
        """For each row the position of its last change between two positions."""
        found: dict[tuple[Value, ...], int] = {}
        for change in self._decoded(after, upto):
            row = dict(zip(change.names, change.values, strict=True))
            found[tuple(row[name] for name in key)] = change.lsn
        return found

    def _block(self, changes: list[Change], after: int, schema: StructType) -> pa.RecordBatch:
        import pyarrow as pa

        from microbatch.sources.postgres.values import converted

        missing = [name for name in self.names if name not in changes[-1].names]
        catalog.refuse_gone(self.server, self.relation, missing)
        key = self.key or self.relation.identifying
        changes, problems = filled(
            self.server, self.relation, key, self.names, changes, functools.partial(self._last, key, after)
        )
        texts = [pa.array(values, pa.string()) for values in _columns(changes, self.names)]
        more = [
            pa.array([change.op for change in changes], pa.string()),
            pa.array([change.lsn for change in changes], pa.int64()),
            pa.array([change.committed_us for change in changes], pa.timestamp("us", "UTC")),
        ]
        return converted(texts, schema, more, problems)


def release(server: Server, slot: Slot, checkpoint: Place) -> None:
    """Move the slot on behind the last batch that Spark has committed; later is soon enough where that fails."""
    committed = numbered(checkpoint / "commits")
    if not committed:
        return
    end = json.loads(offsets(checkpoint, committed[-1]))
    try:
        with server.session() as session:
            slot.release(session, end["lsn"])
    except SourceUnavailable:
        return


def _columns(changes: list[Change], names: tuple[str, ...]) -> list[list[Any]]:
    """The values of these columns, one list each."""
    columns: list[list[Any]] = [[] for _ in names]
    shape: tuple[str, ...] = ()
    at: list[int] = []
    for change in changes:
        if change.names is not shape:
            shape = change.names
            at = [shape.index(name) for name in names]
        for column, position in zip(columns, at, strict=True):
            column.append(change.values[position])
    return columns
