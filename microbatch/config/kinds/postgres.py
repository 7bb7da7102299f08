"""What conf may say of a table of a PostgreSQL server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, WithJsonSchema, field_validator, model_validator

from microbatch.config.kinds.source import SourceConf, at_key
from microbatch.config.values import AmountOrZero, Count, Text

if TYPE_CHECKING:
    from microbatch.config.connection import Connection

LONGEST = 63  # bytes of a name; PostgreSQL manual, "Identifiers and Key Words"
_SLOT = re.compile(r"[a-z0-9_]{1,63}")  # PostgreSQL manual, "Replication Slots"

_NAMES = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}  # as `_names` takes them


def _names(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _name(what: str, name: str) -> str:
    if not name.strip() or '"' in name or not name.isprintable() or len(name.encode()) > LONGEST:
        raise ValueError(f"{what} must be at most {LONGEST} bytes, without quotes")
    return name


class PostgresConf(SourceConf):
    """A table of a PostgreSQL server.

    Attributes:
        connection: a connection of the environment, with `uri`.
        table: `schema.table`, or a table of the search path; names as the server has them, without quotes.
        max_rows_per_batch: about so many; None: all that is there.
        mode: `cursor` reads rows whose cursor grew, `changes` reads each insert, update and delete.
        cursor: a column that grows with every insert and update.
        key: columns that tell rows of one cursor value apart (mode cursor), or identify a row (mode changes, where the
            table has no primary key).
        fetchers: connections that read a batch side by side.
        settle_s: seconds for which a row must have been there before it is read.
        publication, slot: their names on the server; made where missing. None: `microbatch_<job>_<source>`.
    """

    in_python: ClassVar[bool] = True

    kind: Literal["postgres"]
    connection: Text
    table: Text
    max_rows_per_batch: Count | None = None
    mode: Literal["cursor", "changes"] = "cursor"
    cursor: Text | None = None
    key: Annotated[tuple[Text, ...], BeforeValidator(_names), WithJsonSchema(_NAMES)] = ()
    fetchers: Count = 2
    settle_s: AmountOrZero = 0
    publication: Text | None = None
    slot: Text | None = None

    @field_validator("table")
    @classmethod
    def _table(cls, value: str) -> str:
        parts = value.split(".")
        if len(parts) > 2:
            raise ValueError("must be table or schema.table")
        return ".".join(_name("a name of a table", part) for part in parts)

    @field_validator("cursor", "publication")
    @classmethod
    def _one_name(cls, value: str | None) -> str | None:
        return value if value is None else _name("a name", value)

    @field_validator("key")
    @classmethod
    def _columns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_name("a name of a column", each) for each in value)

    @field_validator("slot")
    @classmethod
    def _slot_name(cls, value: str | None) -> str | None:
        if value is not None and not _SLOT.fullmatch(value):
            raise ValueError("a slot's name is of lower case letters, digits and _, at most 63 of them")
        return value

    @model_validator(mode="after")
    def _fits_its_mode(self) -> PostgresConf:
        if self.mode == "cursor" and self.cursor is None:
            raise at_key("cursor", "is needed here: a column that grows with every insert and update")
        given = self.model_fields_set
        foreign = ("cursor", "fetchers", "settle_s") if self.mode == "changes" else ("publication", "slot")
        for name in foreign:
            if name in given and getattr(self, name) is not None:
                raise at_key(name, f"says nothing in mode {self.mode}; leave it out")
        if self.unknown_fields != "ignore":
            raise at_key("unknown_fields", "a table is read by the columns of its schema; leave it out or write ignore")
        return self

    def place(self, root: Path) -> str:
        how = f"by {self.cursor}" if self.mode == "cursor" else "its changes"
        return f"PostgreSQL table {self.table} of connection {self.connection}, {how}"

    def gone(self) -> str | None:
        return "a slot that has moved on does not tell again what it told" if self.mode == "changes" else None

    def identity(self) -> dict[str, Any]:
        common = {"connection": self.connection, "table": self.table, "mode": self.mode}
        own = {"cursor": self.cursor, "key": list(self.key)} if self.mode == "cursor" else {"slot": self.slot}
        return {**common, **own}

    def lacks(self, connection: Connection | None) -> str | None:
        given = connection is not None and connection.uri is not None
        return None if given else f"connection {self.connection} has no uri; a postgres source needs one"

    def adds(self) -> tuple[str, ...]:
        changes = ("_op STRING", "_lsn BIGINT", "_committed_at TIMESTAMP") if self.mode == "changes" else ()
        return (*changes, *super().adds())

    def _places(self) -> tuple[str, ...]:
        return ("_table STRING",) if self.metadata else ()
