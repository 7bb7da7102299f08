"""A table of PostgreSQL by a cursor: the rows whose cursor grew, again and again.

Guarantee:
    At least once: each row that is there when a run begins and is not changed meanwhile is read, however long the
    transaction that wrote it was open (see `horizon`). Of a row that changed between two runs only its newest version is seen,
    and a delete is not seen at all: mode changes sees both. A batch that is read again may lack rows that changed since:
    they come in a later one.
What the server must allow:
    SELECT on the table, and for a timestamptz cursor `pg_read_all_stats`, to see when the transactions of others began. Without
    it a run goes up to what an earlier run saw, or waits two seconds for those that are open. It has to be the primary: a
    standby does not show who writes.
What it costs the server:
    An index on (cursor, key) makes each question cheap: how far a run goes, where a batch ends, its rows. Without one each is
    a scan of the table. `fetchers` connections read at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from microbatch import empty
from microbatch.errors import ConfigError, Problem, StateChanged
from microbatch.places import Place
from microbatch.sources.postgres import catalog, rows
from microbatch.sources.postgres.catalog import Column, Relation
from microbatch.sources.postgres.connection import PRIMARY, START_ANEW, Server, Session, literal, quoted
from microbatch.sources.postgres.horizon import Ceilings, Horizon, blind, largest
from microbatch.sources.postgres.ranges import CursorReading

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

Offset = dict[str, Any]
CURSORS = (*catalog.WHOLE, "numeric", "timestamp", "timestamptz", "uuid", *catalog.WORDS)
ENDLESS = {"timestamp": ("infinity", "-infinity"), "numeric": ("NaN", "infinity", "-infinity")}


class CursorConf(Protocol):
    """What conf says of a table that is read by a cursor."""

    @property
    def table(self) -> str: ...
    @property
    def cursor(self) -> str | None: ...
    @property
    def key(self) -> tuple[str, ...]: ...
    @property
    def max_rows_per_batch(self) -> int | None: ...
    @property
    def fetchers(self) -> int: ...
    @property
    def settle_s(self) -> float: ...
    @property
    def metadata(self) -> bool: ...


@dataclass(frozen=True)
class CursorInput:
    """A table that is read by a cursor, as one flow reads it."""

    unit: ClassVar[str] = "row"

    server: Server
    schema: str
    conf: CursorConf
    checkpoint: Place

    def fetch(self) -> None:
        """Write down how far a later run may go, where the server's own records do not tell; see `horizon`."""
        with self.server.session() as session:
            self._reading(session, keep=True)

    def pending(self) -> int:
        """Rows that no batch has taken in yet and that no open transaction can come before; counted up to 100,000.

        Raises:
            SourceUnavailable: the server did not answer.
            StateChanged: it is another server, or the table was set back.
            ConfigError: it is a standby, refuses the role, or has no such table or column.
        """
        with self.server.session() as session:
            reading = self._reading(session)
            if reading.until is None:
                return 0
            start = rows.offset_of(self.checkpoint) or reading.first()
            within = reading.between(start, {"cursor": reading.until, "key": None})
            some = f"SELECT FROM {reading.relation.sql} WHERE {within} LIMIT {rows.MOST_COUNTED}"
            return int(session.value(f"SELECT count(*) FROM ({some}) x"))

    def stream(self, spark: SparkSession) -> DataFrame:
        """Rows up to what is there now: the schema's columns as `values` makes them, and the cursor as text."""
        from microbatch.sources.postgres import datasource

        with self.server.session() as session:
            reading = self._reading(session)
        name = f"postgres_{self.server.flow}_{self.server.source}"
        return datasource.stream(spark, name, reading, self._of_blocks(spark))

    def rows(self, batch: DataFrame) -> DataFrame:
        """See `Stream`."""
        from pyspark.sql import functions as F

        from microbatch.sources.postgres.values import HIDDEN

        declared = self._declared(batch.sparkSession)
        added = {"_table": F.lit(self.conf.table)} if self.conf.metadata else {}
        if HIDDEN not in batch.columns:
            return rows.shaped(batch, declared, added, F.col(f"`{self.conf.cursor}`"))
        text = F.col(HIDDEN)
        at = F.when(text.rlike(r"^\d{4}-\d\d-\d\d "), text).try_cast("timestamp")  # not every cursor is a time
        return rows.shaped(batch, declared, added, at)

    def sample(self, spark: SparkSession, most: int) -> DataFrame:
        """See `Stream`: the rows that come next, else the newest."""
        schema = self._of_blocks(spark)
        with self.server.session() as session:
            reading = self._reading(session)
        start = rows.offset_of(self.checkpoint) or reading.first()
        cursor = quoted("t", reading.cursor.name)
        after = reading.between(start, {"cursor": None})
        blocks: list[pa.RecordBatch] = []
        for condition in (f"{after} ORDER BY {cursor} LIMIT {most}", f"true ORDER BY {cursor} DESC LIMIT {most}"):
            blocks = blocks or list(reading.blocks(condition, schema))
        return self.rows(rows.sampled(spark, schema, blocks, most))

    def of_letters(self, texts: DataFrame, shape: StructType) -> DataFrame:
        """See `Input`."""
        return rows.of_letters(texts, self._declared(texts.sparkSession), shape)

    def notes(self) -> list[str]:
        """What somebody should know before a run."""
        with self.server.session() as session:
            relation, cursor = self._relation(session)
            told = []
            if blind(session):
                told.append(
                    f"the role of connection {self.server.connection} cannot see when the transactions of others began, so "
                    "a run goes no further than an earlier one saw, or waits for those that are open; "
                    "GRANT pg_read_all_stats TO it"
                )
            elif cursor.type != "timestamptz":
                told.append(
                    f"cursor {cursor.name} is {cursor.shown}: while a transaction that writes is open, a run goes no further "
                    "than an earlier one saw; a timestamptz that defaults to now() waits for nobody"
                )
            if not session.value(_INDEXED, relation.oid, cursor.name) and relation.kind in ("r", "p", "m"):
                columns = ", ".join(quoted(name) for name in (cursor.name, *self.conf.key))
                told.append(
                    f"no index of {relation.shown} begins with {cursor.name}, so each batch reads the whole table: "
                    f"CREATE INDEX ON {relation.sql} ({columns})"
                )
            return told

    def _reading(self, session: Session, keep: bool = False) -> CursorReading:
        """What a query that begins now would read."""
        identifier = catalog.system_identifier(session)
        offset = rows.offset_of(self.checkpoint)
        rows.refuse_other_server(self.server, offset, identifier)
        if catalog.is_standby(session):
            what = f"the server is a standby, which does not show who writes; {PRIMARY}"
            raise ConfigError(Problem(f"source {self.server.source}", what))
        relation, cursor = self._relation(session)
        reading = CursorReading(
            server=self.server,
            relation=relation,
            names=tuple(catalog.fields_of(self.schema)),
            cursor=cursor,
            key=self.conf.key,
            until=None,
            max_rows=self.conf.max_rows_per_batch,
            fetchers=self.conf.fetchers,
            system_identifier=identifier,
        )
        self._refuse_values(session, relation, cursor)
        self._refuse_set_back(session, reading, offset)
        horizon = Horizon(relation, cursor, self.conf.settle_s, Ceilings(self.checkpoint))
        return replace(reading, until=horizon.safe(session, keep))

    def _relation(self, session: Session) -> tuple[Relation, Column]:
        relation = catalog.relation(session, self.server, self.conf.table)
        catalog.refuse_missing(self.server, relation, [str(self.conf.cursor)], "cursor")
        catalog.refuse_missing(self.server, relation, self.conf.key, "key")
        catalog.refuse_missing(self.server, relation, tuple(catalog.fields_of(self.schema)), "the schema")
        catalog.refuse_unfit(self.server, relation, self.schema)
        cursor = relation.columns[str(self.conf.cursor)]
        where = f"source {self.server.source}"
        if cursor.type not in CURSORS:
            what = (
                f"cursor {cursor.name} is {cursor.shown}, which does not grow with every change; choose a timestamptz"
            )
            raise ConfigError(Problem(where, what))
        loose = [name for name in self.conf.key if not relation.columns[name].not_null]
        if loose and relation.kind in ("r", "p"):
            what = f"key {', '.join(loose)} may be null, and such rows would be lost where a batch ends; choose NOT NULL columns"
            raise ConfigError(Problem(where, what))
        return relation, cursor

    def _refuse_values(self, session: Session, relation: Relation, cursor: Column) -> None:
        """Rows that a reader by this cursor would never see."""
        name = quoted(cursor.name)
        # A table that may hold a null key is refused before; of a view or a foreign table nobody knows.
        odd = [(cursor.name, f"{name} IS NULL", "null")] if not cursor.not_null else []
        odd += [(key, f"{quoted(key)} IS NULL", "null") for key in self.conf.key if not relation.columns[key].not_null]
        values: Sequence[str] = ENDLESS.get(cursor.type.removesuffix("tz"), ())
        odd += [(cursor.name, f"{name} = {literal(value)}", value) for value in values]
        for column, condition, shown in odd:
            if session.value(f"SELECT EXISTS (SELECT FROM {relation.sql} WHERE {condition})"):
                what = (
                    f"source {self.server.source}: {relation.shown} has rows whose {column} is {shown}: "
                    "they would not be read"
                )
                remedy = "give them a value that grows with each change, or read the table with mode: changes"
                raise StateChanged(self.server.flow, what, remedy)

    def _refuse_set_back(self, session: Session, reading: CursorReading, offset: Offset | None) -> None:
        if offset is None or offset["cursor"] is None:
            return
        name, before = quoted("t", reading.cursor.name), f"{literal(offset['cursor'])}::{reading.cursor.type}"
        found = session.row(largest(f"{name} < {before}, {name}::text", reading.relation, reading.cursor.name))
        if found and found[0]:
            what = (
                f"source {self.server.source}: the largest {reading.cursor.name} of {reading.relation.shown} is {found[1]}, "
                f"and {offset['cursor']} was read already: the table was restored from a backup, or its newest rows deleted"
            )
            raise StateChanged(self.server.flow, what, START_ANEW)

    def _declared(self, spark: SparkSession) -> StructType:
        return empty.declared(spark, self.schema)

    def _of_blocks(self, spark: SparkSession) -> StructType:
        """What the blocks hold: the schema's columns, the cursor as text where none of them is its time, what did not fit."""
        from pyspark.sql.types import StringType, StructField, StructType

        from microbatch.sources.postgres.values import HIDDEN, UNPARSED

        is_there = catalog.fields_of(self.schema).get(str(self.conf.cursor)) == "timestamp"
        more = [] if is_there else [StructField(HIDDEN, StringType())]
        return StructType([*self._declared(spark), *more, *UNPARSED])


_INDEXED = """
SELECT EXISTS (
  SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
  WHERE i.indrelid = %s AND a.attname = %s AND i.indpred IS NULL)
"""
