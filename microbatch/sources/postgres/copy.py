"""The first copy of a table that is read by its changes: the table as it was at one moment, kept beside the checkpoint.

A slot tells every transaction that commits after it was made. The copy is made after that, in one snapshot, and the snapshot
says which transactions it holds: those are not told a second time, all others are. So nothing is missing and nothing is twice,
with plain SQL and whatever the server does meanwhile. The copy is spooled, so that a batch of it can be read again.

Source: PostgreSQL manual, "System Information Functions", pg_current_snapshot; "Snapshot Synchronization Functions".
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from microbatch.errors import SourceUnavailable, StateChanged
from microbatch.places import Place, remove_tree, write
from microbatch.sources.postgres.catalog import Relation, partitions
from microbatch.sources.postgres.connection import START_ANEW, Server, Session, quoted
from microbatch.sources.postgres.pgoutput import Snapshot
from microbatch.sources.postgres.slot import WAIT_S, Slot

if TYPE_CHECKING:
    import pyarrow as pa

FILE_ROWS = 100_000  # rows of a file, which one task reads
_EXPORTED = """SELECT to_char(now(), 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'), pg_export_snapshot()"""
_INSERT_LSN = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"


@dataclass(frozen=True)
class Copy:
    """A copy that is whole.

    Attributes:
        start: where the slot's changes begin that are not in it.
        lsn: the position its rows carry: behind every change that is in it, before every change that is not.
        snapshot, below: which transactions it holds; see `Snapshot`.
        at: when it was made, ISO 8601.
        oid: of the table.
        bond: what tied it to the publication when the copy was begun.
        names: of its columns.
        partitions: the tables it was made of then, and those that came since; see `keep`.
        rows: how many each file has.
    """

    start: int
    lsn: int
    snapshot: str
    below: int
    at: str
    oid: int
    bond: tuple[int, ...]
    names: tuple[str, ...]
    partitions: tuple[int, ...]
    system_identifier: str
    rows: tuple[int, ...]

    @property
    def holds(self) -> Snapshot:
        return Snapshot.of(self.snapshot, self.below)


class Spool:
    """Where the copy of a flow's table lies, in its checkpoint."""

    def __init__(self, checkpoint: Place) -> None:
        self.folder = checkpoint / "microbatch" / "copy"
        self.record = checkpoint / "microbatch" / "copy.json"

    def read(self) -> Copy | None:
        """The copy, or None where none was finished."""
        if not self.record.exists():
            return None
        found = json.loads(self.record.read_text())
        return Copy(**{**found, **{name: tuple(found[name]) for name in ("bond", "names", "partitions", "rows")}})

    def keep(self, copy: Copy, partitions: Sequence[int]) -> None:
        """Write down partitions that came since: whether one of them goes again, too, is asked from now on."""
        known = tuple(sorted({*copy.partitions, *partitions}))
        if known != copy.partitions:
            write(self.record, json.dumps(asdict(replace(copy, partitions=known))))

    def file(self, number: int) -> Place:
        """One of its files: parquet, every value as text."""
        return self.folder / f"{number:06}.parquet"

    def forget(self) -> None:
        """Remove the files: every batch of the copy is committed. What it was stays written down."""
        remove_tree(self.folder)

    def make(
        self, server: Server, session: Session, slot: Slot, relation: Relation, names: Sequence[str], file_rows: int
    ) -> Copy:
        """Make slot and copy. One that was begun and not finished is made anew.

        Raises:
            SourceUnavailable: transactions are open for longer than anybody waits.
        """
        bond, parts = slot.bond(session, relation), partitions(session, relation)
        made = slot.ensure(session)
        standing = slot.standing(session)
        assert standing is not None
        if not made:
            # What is written is in the copy. And of a time without the publication a server before version 18 tells nothing.
            slot.release(session, standing.written)
            standing = slot.standing(session)
            assert standing is not None
        # Behind all that is written so far. Whoever wrote it has ended when the snapshot is taken, so that none of the
        # changes which the slot goes on to tell lies before it.
        lsn = standing.confirmed if made else session.value(_INSERT_LSN)
        # Something in the log at that position: a change that came next would otherwise carry the same one as the copy.
        session.do("SELECT pg_logical_emit_message(false, 'microbatch', 'first copy')")
        # A number of our own: whoever wrote before has a smaller one. The end of a snapshot is only behind those that ended.
        began_below = session.value("SELECT pg_current_xact_id()::text::bigint")
        self.record.unlink(missing_ok=True)
        self.forget()
        self.folder.mkdir(parents=True)
        snapshot = self._snapshot(server, session, began_below)
        at, exported = session.row(_EXPORTED) or ("", "")
        below = session.value(_INSERT_LSN)
        chosen = ", ".join(f"{relation.columns[name].as_text} AS {quoted(name)}" for name in names)
        blocks = server.batches(f"SELECT {chosen} FROM {relation.sql} t", snapshot=exported)
        rows = tuple(self._write(blocks, file_rows))
        session.do("ROLLBACK")
        identifier = session.value("SELECT system_identifier::text FROM pg_control_system()")
        copy = Copy(
            standing.confirmed, lsn, snapshot, below, at, relation.oid, bond, tuple(names), parts, identifier, rows
        )
        write(self.record, json.dumps(asdict(copy)))
        return copy

    def blocks(self, number: int) -> Iterator[pa.RecordBatch]:
        """The rows of one of its files, as text.

        Raises:
            FileNotFoundError: it is not there.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(pa.BufferReader(self.file(number).read_bytes())) as file:
            yield from file.iter_batches()

    def refuse_missing(self, server: Server, copied: int, copy: Copy, names: Sequence[str]) -> None:
        """Refuse to go on without files, or columns in them, that no batch has taken in yet.

        Raises:
            StateChanged: one is gone, or the schema names a column that was not copied.
        """
        lacking = [name for name in names if name not in copy.names]
        if lacking and copied < len(copy.rows):
            what = (
                f"source {server.source}: the first copy has no column {', '.join(lacking)}, which the schema names now"
            )
            raise StateChanged(server.flow, what, f"take it out of the schema until the copy is read, or {START_ANEW}")
        gone = [self.file(number) for number in range(copied, len(copy.rows)) if not self.file(number).exists()]
        if gone:
            what = f"checkpoint damaged: {gone[0]}, a part of the first copy of {server.source}, is missing"
            raise StateChanged(server.flow, what, "put it back, or start anew with `--accept checkpoint`")

    def _snapshot(self, server: Server, session: Session, began_below: int) -> str:
        """Begin a transaction that sees every one of those that had begun."""
        deadline = time.monotonic() + WAIT_S
        while True:
            session.do("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            snapshot = str(session.value("SELECT pg_current_snapshot()::text"))
            if int(snapshot.partition(":")[0]) >= began_below:
                return snapshot
            session.do("ROLLBACK")
            if time.monotonic() > deadline:
                oldest = session.value(
                    "SELECT min(xact_start)::text FROM pg_stat_activity WHERE backend_xid IS NOT NULL"
                )
                what = f"the first copy waits for a transaction that is open since {oldest}"
                raise SourceUnavailable(server.source, what)
            time.sleep(0.05)

    def _write(self, blocks: Iterator[pa.RecordBatch], file_rows: int) -> Iterator[int]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = 0
        for block in blocks:
            for at in range(0, block.num_rows, file_rows):
                part = block.slice(at, file_rows)
                written = pa.BufferOutputStream()
                pq.write_table(pa.Table.from_batches([part]), written, compression="zstd")
                self.file(number).write_bytes(written.getvalue().to_pybytes())
                number += 1
                yield part.num_rows
