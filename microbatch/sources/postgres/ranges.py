"""The rows between two values of a cursor: what Spark asks of a reader by cursor, on the driver and on its workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from microbatch.sources.postgres.catalog import Column, Relation
from microbatch.sources.postgres.connection import Server, Session, literal, quoted

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql.types import StructType

Offset = dict[str, Any]
# What ADBC gives as Spark has it, whatever the value; a text of it would be made and read again for nothing.
PLAIN = {"int2": "smallint", "int4": "int", "int8": "bigint", "text": "string", "varchar": "string"}
SAMPLED = 20_000  # rows of which the borders between fetchers are taken


@dataclass(frozen=True)
class CursorReading:
    """The rows between two offsets. An offset is a cursor value, and where that value is split the key of its last row.

    Attributes:
        key: columns that are never null; empty: a value is never split between two batches.
        until: the largest value this query goes up to; None: nothing is there.
    """

    server: Server
    relation: Relation
    names: tuple[str, ...]
    cursor: Column
    key: tuple[str, ...]
    until: str | None
    max_rows: int | None
    fetchers: int
    system_identifier: str

    def first(self) -> Offset:
        return self._offset(None, None)

    def end(self, start: Offset, max_rows: int | None) -> Offset:
        with self.server.session() as session:
            return self.end_by(session, start, max_rows)

    def end_by(self, session: Session, start: Offset, max_rows: int | None) -> Offset:
        """See `Reading.end`."""
        if self.until is None:
            return start
        whole = self._offset(self.until, None)
        within = self.between(start, whole)
        if max_rows is not None:
            # Without the t a name would be that of the text beside it, and texts have an order of their own.
            order = ", ".join(quoted("t", name) for name in (self.cursor.name, *self.key))
            chosen = ", ".join(f"{quoted(name)}::text" for name in (self.cursor.name, *self.key))
            found = session.row(
                f"SELECT {chosen} FROM {self.relation.sql} t WHERE {within} ORDER BY {order} LIMIT 1 OFFSET {max_rows - 1}"
            )
            if found is not None:
                return self._offset(found[0], list(found[1:]) or None)
        some = session.value(f"SELECT EXISTS (SELECT FROM {self.relation.sql} WHERE {within})")
        return whole if some else start

    def parts(self, start: Offset, end: Offset) -> list[str]:
        """Conditions, one a fetcher: ranges of the cursor that together are the batch."""
        if start == end:
            return []
        within = self.between(start, end)
        borders = self._borders(within) if self.fetchers > 1 else []
        cursor, edges = quoted(self.cursor.name), [self._typed(each) for each in borders]
        ranges = [
            " AND ".join(
                [*([f"{cursor} > {low}"] if low else []), *([f"{cursor} <= {high}"] if high else [])] or ["true"]
            )
            for low, high in zip([None, *edges], [*edges, None], strict=True)
        ]
        return [f"{within} AND {each}" for each in ranges]

    def blocks(self, part: str, schema: StructType) -> Iterator[pa.RecordBatch]:
        from microbatch.sources.postgres.values import HIDDEN, converted

        chosen = [self._chosen(name, schema) for name in self.names]
        told = [f"{quoted(self.cursor.name)}::text"] if HIDDEN in schema.fieldNames() else []
        for block in self.server.batches(
            f"SELECT {', '.join([*chosen, *told])} FROM {self.relation.sql} t WHERE {part}"
        ):
            columns = block.columns
            yield converted(columns[: len(chosen)], schema, columns[len(chosen) :])

    def done(self, end: Offset) -> None:
        """The server keeps nothing for this reader."""

    def between(self, start: Offset, end: Offset) -> str:
        """SQL that is true for the rows after the one offset, up to and with the other."""
        return f"{self._side(start, '>')} AND {self._side(end, '<=')}"

    def _side(self, offset: Offset, operator: str) -> str:
        if offset["cursor"] is None:
            return "true"
        value = self._typed(offset["cursor"])
        if offset["key"] is None:
            return f"{quoted(self.cursor.name)} {operator} {value}"
        left = ", ".join(quoted(name) for name in (self.cursor.name, *self.key))
        right = ", ".join(
            [value, *[literal(text) for text in offset["key"]]]
        )  # a constant takes the type of what it is compared with
        return f"({left}) {operator} ({right})"

    def _chosen(self, name: str, schema: StructType) -> str:
        """A column in a SELECT: as text, where the driver does not give the very type that is wanted."""
        column = self.relation.columns[name]
        plain = PLAIN.get(column.type) == schema[name].dataType.simpleString()
        return quoted(name) if plain else column.as_text

    def _borders(self, within: str) -> list[str]:
        """Values that part a large batch into pieces of about one size; none for a small one, or where nobody knows."""
        if self.relation.kind not in ("r", "p", "m"):
            return []
        percent = min(100.0, 100.0 * SAMPLED / self.relation.rows) if self.relation.rows > 0 else 100.0
        shares = ", ".join(str(number / self.fetchers) for number in range(1, self.fetchers))
        cursor = quoted(self.cursor.name)
        statement = (
            f"SELECT DISTINCT b FROM unnest((SELECT percentile_disc(ARRAY[{shares}]) WITHIN GROUP (ORDER BY {cursor}) "
            f"FROM {self.relation.sql} TABLESAMPLE SYSTEM ({percent:.6f}) WHERE {within})) b ORDER BY b"
        )
        with self.server.session() as session:
            return [str(each) for (each,) in session.rows(f"SELECT b::text FROM ({statement}) x") if each is not None]

    def _typed(self, value: str) -> str:
        return f"{literal(value)}::{self.cursor.type}"

    def _offset(self, cursor: str | None, key: list[str] | None) -> Offset:
        return {"cursor": cursor, "key": key, "system_identifier": self.system_identifier}
