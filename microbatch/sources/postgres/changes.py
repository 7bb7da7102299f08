"""A table of PostgreSQL by its changes: first the table as it is, then each insert, update and delete, in commit order.

Guarantee:
    Each committed change exactly once a checkpoint, whole transactions, the same changes for the same two offsets. The slot moves
    on only behind what Spark has committed, so a batch can always be read again. Changes of one row come in the order of
    `_lsn`, which is unique; rows of the first copy carry one position, before all changes that are not in the copy.
    A change of the key is a delete and an insert. A TRUNCATE, a slot that was lost or made anew, a table made anew, a publication
    that was made anew or left the table out for a while, a partition that is gone, a server whose log ends before what was read
    (it was set back to an older state): an error.
    Not seen: a `publish` that was narrowed and widened again between two runs; a server that was set back and has written as
    much again before a run comes; of a partitioned table what a server does not tell of its parts: a TRUNCATE of one by itself,
    an ATTACH of one that has rows, one that was made and dropped between two runs.
    A deleted row has its key, and the rest where the table's replica identity is FULL. A long value that an update left as it
    was is sent with FULL, else looked for (see `unsent`); a row with one that cannot be known goes to quarantine.
What the server must allow:
    wal_level = logical; a role with REPLICATION, SELECT on the table and, to make the publication, its ownership. A replication
    slot (max_replication_slots), no connection of the replication protocol.
What it costs the server:
    The log since the last committed batch is kept: a job that no longer runs needs its slot dropped, or max_slot_wal_keep_size.
    Each run decodes what waits twice, once to count it and once to read it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from microbatch import empty
from microbatch.errors import SourceUnavailable, StateChanged
from microbatch.places import Place, write
from microbatch.sources.postgres import catalog, rows
from microbatch.sources.postgres.catalog import Relation
from microbatch.sources.postgres.connection import START_ANEW, Server, Session
from microbatch.sources.postgres.copy import FILE_ROWS, Copy, Spool
from microbatch.sources.postgres.log import ChangesReading, release
from microbatch.sources.postgres.slot import Look, Slot
from microbatch.sources.tables import numbered

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

Offset = dict[str, Any]


class ChangesConf(Protocol):
    """What conf says of a table that is read by its changes."""

    @property
    def table(self) -> str: ...
    @property
    def key(self) -> tuple[str, ...]: ...
    @property
    def max_rows_per_batch(self) -> int | None: ...
    @property
    def metadata(self) -> bool: ...


class ChangesInput:
    """A table that is read by its changes, as one flow reads it."""

    unit: ClassVar[str] = "change"

    def __init__(self, server: Server, schema: str, conf: ChangesConf, slot: Slot, checkpoint: Place) -> None:
        self.server, self.schema, self.conf, self.slot, self.checkpoint = server, schema, conf, slot, checkpoint
        self._seen: tuple[int, Look] | None = None

    def fetch(self) -> None:
        """Publication, slot and first copy where they are missing; what is done with is given back to the server.

        Raises:
            SourceUnavailable, StateChanged, ConfigError: see `pending`.
        """
        with self.server.session() as session:
            relation = self._relation(session)
            offset = rows.offset_of(self.checkpoint)
            copy = self._copy(session, relation)
            if copy is None:
                # First: once it is published, a table that nothing identifies the rows of could not be updated any more.
                self.slot.refuse_unfit(session, relation, self._names, self.conf.key)
                self.slot.ensure_publication(session, relation)
                most = min(self.conf.max_rows_per_batch or FILE_ROWS, FILE_ROWS)
                Spool(self.checkpoint).make(self.server, session, self.slot, relation, self._names, most)
                return
            Spool(self.checkpoint).keep(copy, catalog.partitions(session, relation))
            release(self.server, self.slot, self.checkpoint)
            until, look = self._waiting(session, relation, offset)
            done = offset is not None and numbered(self.checkpoint / "offsets") == numbered(self.checkpoint / "commits")
            idle = done and not self._uncopied(offset)
            while idle and not look.waiting:
                # Before the slot moves: it must never be ahead of what is known.
                Skipped(self.checkpoint).write(look.upto)
                self.slot.release(session, look.upto)
                if look.upto >= until:
                    break
                look = self._look(session, relation, offset, until)
            self._seen = until, look

    def pending(self) -> int:
        """Rows of the first copy and changes that no batch has taken in yet; counted up to about 100,000.

        Raises:
            SourceUnavailable: the server did not answer, or another reader has the slot.
            StateChanged: the slot or the table is not the one that was read; the copy is damaged.
            ConfigError: the server refuses the role, has no such table or column, or cannot tell its changes.
        """
        with self.server.session() as session:
            relation = self._relation(session)
            offset = rows.offset_of(self.checkpoint)
            copy = self._copy(session, relation)
            if offset is None and copy is None:
                self.slot.refuse_unfit(session, relation, self._names, self.conf.key)
                some = f"SELECT FROM {relation.sql} LIMIT {rows.MOST_COUNTED}"
                return max(1, int(session.value(f"SELECT count(*) FROM ({some}) x")))  # a run makes the slot at least
            self._seen = self._seen or self._waiting(session, relation, offset)
            after = offset["lsn"] if offset else 0
            until, look = self._seen
            known = self._uncopied(offset) + sum(each.changes for each in look.waiting if each.commit >= after)
            return known or int(
                look.upto < until and after < until
            )  # where nobody looked there may be some: a run looks

    def stream(self, spark: SparkSession) -> DataFrame:
        """The copy, then changes up to now: the schema's columns as `values` makes them, `_op`, `_lsn`, `_committed_at`."""
        from microbatch.sources.postgres import datasource

        with self.server.session() as session:
            reading = self._reading(session)
        name = f"postgres_{self.server.flow}_{self.server.source}"
        return datasource.stream(spark, name, reading, self._of_blocks(spark))

    def rows(self, batch: DataFrame) -> DataFrame:
        """See `Stream`."""
        from pyspark.sql import functions as F

        added = {"_table": F.lit(self.conf.table)} if self.conf.metadata else {}
        declared = self._with_changes(batch.sparkSession)
        return rows.shaped(batch, declared, added, newest=F.col("_committed_at"), order=F.col("_lsn"))

    def sample(self, spark: SparkSession, most: int) -> DataFrame:
        """See `Stream`: changes that wait, else rows of the table as a first copy has them. Nothing is made on the server."""
        import pyarrow as pa

        from microbatch.sources.postgres.values import converted

        schema = self._of_blocks(spark)
        blocks: list[pa.RecordBatch] = []
        with self.server.session() as session:
            relation = self._relation(session)
            if rows.offset_of(self.checkpoint) is not None:
                reading = self._reading(session)
                start = rows.offset_of(self.checkpoint) or reading.first()
                for part in reading.parts(start, reading.end(start, most)):
                    blocks += reading.blocks(part, schema)
        if not blocks:
            chosen = ", ".join(relation.columns[name].as_text for name in self._names)
            for block in self.server.batches(f"SELECT {chosen} FROM {relation.sql} t LIMIT {most}"):
                op = pa.array(["insert"] * block.num_rows, pa.string())
                nothing = [pa.nulls(block.num_rows, pa.int64()), pa.nulls(block.num_rows, pa.timestamp("us", "UTC"))]
                blocks.append(converted(block.columns, schema, [op, *nothing]))
        return self.rows(rows.sampled(spark, schema, blocks, most))

    def of_letters(self, texts: DataFrame, shape: StructType) -> DataFrame:
        """See `Input`."""
        return rows.of_letters(texts, self._with_changes(texts.sparkSession), shape)

    def notes(self) -> list[str]:
        """What somebody should know before a run."""
        with self.server.session() as session:
            relation = self._relation(session)
            told = []
            apart = [name for name in self._names if relation.columns[name].stored_apart]
            if relation.identity != "f" and apart:
                told.append(
                    f"an update does not send a long {', '.join(apart)} that it leaves as it was; it is looked for on the "
                    "server, and where the row has changed again meanwhile that version goes to quarantine; "
                    f"ALTER TABLE {relation.sql} REPLICA IDENTITY FULL has it sent"
                )
            if relation.kind == "p":
                told.append(
                    f"nobody is told of a TRUNCATE of one partition of {relation.shown} by itself, nor of the rows of a table "
                    "that ATTACH makes a partition of it: DELETE them, and INSERT them after it is attached"
                )
            standing = self.slot.standing(session)
            if standing is None:
                told.append(
                    f"a run makes replication slot {self.slot.name} on the server, and copies {relation.shown} first"
                )
            else:
                told.append(
                    f"the server keeps {standing.lag_bytes:,} bytes of log for replication slot {self.slot.name}"
                )
            return told

    def lag_bytes(self) -> int | None:
        """Log that the server keeps for this reader; None before there is a slot."""
        with self.server.session() as session:
            standing = self.slot.standing(session)
            return None if standing is None else standing.lag_bytes

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(catalog.fields_of(self.schema))

    def _relation(self, session: Session) -> Relation:
        relation = catalog.relation(session, self.server, self.conf.table)
        catalog.refuse_missing(self.server, relation, self._names, "the schema")
        catalog.refuse_unfit(self.server, relation, self.schema)
        catalog.refuse_missing(self.server, relation, self.conf.key, "key")
        return relation

    def _copy(self, session: Session, relation: Relation) -> Copy | None:
        """The copy this checkpoint began with; None where it has to be made.

        Raises:
            StateChanged: there was one, and it or the table is not what it was.
        """
        copy, offset = Spool(self.checkpoint).read(), rows.offset_of(self.checkpoint)
        bond, partitions = self.slot.bond(session, relation), catalog.partitions(session, relation)
        if offset is None:
            standing = self.slot.standing(session)
            if copy is None or standing is None or standing.lost or standing.confirmed > copy.start:
                return None
            same = (copy.oid, copy.bond, copy.system_identifier) == (
                relation.oid,
                bond,
                catalog.system_identifier(session),
            )
            whole = set(copy.partitions) <= set(partitions) and set(self._names) <= set(copy.names)
            return copy if same and whole else None
        if copy is None:
            what = f"checkpoint damaged: {Spool(self.checkpoint).record} is missing"
            raise StateChanged(self.server.flow, what, START_ANEW)
        rows.refuse_other_server(self.server, offset, catalog.system_identifier(session))
        if copy.oid != relation.oid:
            what = f"source {self.server.source}: {relation.shown} was made anew since it was read"
            raise StateChanged(self.server.flow, what, START_ANEW)
        if not set(copy.partitions) <= set(partitions):
            what = (
                f"source {self.server.source}: {relation.shown} lost a partition since it was read, by DROP or DETACH, and "
                "nobody says which rows are gone"
            )
            raise StateChanged(self.server.flow, what, START_ANEW)
        if copy.bond != bond:
            what = (
                f"source {self.server.source}: publication {self.slot.publication} was changed since {relation.shown} was read: "
                "what was written while it did not tell all of the table will never be told"
            )
            raise StateChanged(self.server.flow, what, f"let it publish the whole table, and {START_ANEW}")
        Spool(self.checkpoint).refuse_missing(self.server, offset["copied"], copy, self._names)
        return copy

    def _waiting(self, session: Session, relation: Relation, offset: Offset | None) -> tuple[int, Look]:
        """The log's end, and what waits before it, as far as a first look goes."""
        copy = self._copy(session, relation)
        assert copy is not None
        after = offset["lsn"] if offset else copy.start
        self.slot.refuse_unfit(session, relation, self._names, self.conf.key)
        until = self.slot.refuse_lost(session, max(after, Skipped(self.checkpoint).read())).written
        if until <= after:
            return after, Look(after, [])
        return until, self._look(session, relation, offset, until)

    def _look(self, session: Session, relation: Relation, offset: Offset | None, until: int) -> Look:
        copy = Spool(self.checkpoint).read()
        assert copy is not None  # `_waiting` was here before
        after = offset["lsn"] if offset else copy.start
        return self.slot.look(session, relation, after, until, copy.holds, rows.MOST_COUNTED)

    def _uncopied(self, offset: Offset | None) -> int:
        copy = Spool(self.checkpoint).read()
        return 0 if copy is None else sum(copy.rows[offset["copied"] if offset else 0 :])

    def _reading(self, session: Session) -> ChangesReading:
        relation = self._relation(session)
        copy = self._copy(session, relation)
        if copy is None:
            raise SourceUnavailable(self.server.source, "its slot went away while the run began; try again")
        self._seen = self._seen or self._waiting(session, relation, rows.offset_of(self.checkpoint))
        until, look = self._seen
        return ChangesReading(
            server=self.server,
            slot=self.slot,
            relation=relation,
            names=self._names,
            key=self.conf.key,
            copy=copy,
            checkpoint=self.checkpoint,
            until=until,
            waiting=bool(look.waiting) or look.upto < until,
            max_rows=self.conf.max_rows_per_batch,
        )

    def _declared(self, spark: SparkSession) -> StructType:
        return empty.declared(spark, self.schema)

    def _with_changes(self, spark: SparkSession) -> StructType:
        return empty.declared(spark, f"{self.schema}, _op STRING, _lsn BIGINT, _committed_at TIMESTAMP")

    def _of_blocks(self, spark: SparkSession) -> StructType:
        from pyspark.sql.types import StructType

        from microbatch.sources.postgres.values import UNPARSED

        return StructType([*self._with_changes(spark), *UNPARSED])


class Skipped:
    """Up to where the slot was moved on with nothing in it: log of other tables, which the server need not keep."""

    def __init__(self, checkpoint: Place) -> None:
        self.file = checkpoint / "microbatch" / "skipped.json"

    def read(self) -> int:
        return int(json.loads(self.file.read_text())["lsn"]) if self.file.exists() else 0

    def write(self, lsn: int) -> None:
        write(self.file, json.dumps({"lsn": lsn}))
