"""What a table of PostgreSQL is: its columns, its key, and whether it can be read as the schema says."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from microbatch.errors import ConfigError, Problem
from microbatch.sources.postgres.connection import Server, Session, quoted

WHOLE = ("int2", "int4", "int8", "oid", "xid8")
SPARK_WHOLE = ("tinyint", "smallint", "int", "bigint")
NUMBERS = (*SPARK_WHOLE, "decimal", "float", "double")
WORDS = ("text", "varchar", "bpchar")
TIMES = ("timestamp", "timestamp_ntz")
# What a slot says is what their output function writes: not, as a cast to text, 10.0.0.1/32, true, or an encoding of xml's.
CAST_OTHERWISE = ("inet_out", "boolout", "xml_out")
# Into which of Spark's types the values of a type go one by one; STRING takes each as PostgreSQL writes it.
GOES_INTO: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys((*WHOLE, "numeric"), NUMBERS),
    **dict.fromkeys(("float4", "float8"), ("float", "double")),
    **dict.fromkeys(WORDS, (*NUMBERS, "boolean", "date", *TIMES)),
    "bool": ("boolean",),
    "date": ("date", *TIMES),
    "timestamp": TIMES,
    "timestamptz": TIMES,
    "bytea": ("binary",),
}

# Spark SQL manual, "Data Types"
SYNONYMS = {
    "integer": "int",
    "long": "bigint",
    "short": "smallint",
    "byte": "tinyint",
    "real": "float",
    "dec": "decimal",
    "numeric": "decimal",
    "timestamp_ltz": "timestamp",
}
_WORD = re.compile(r"\w+")
_NAME = re.compile(r"([^\s:]+)\s*:?\s*(.*)", re.DOTALL)
_MORE = re.compile(r"\s+(?:not\s+null|default|generated|comment)\b", re.IGNORECASE)

_RELATION = """
SELECT c.oid, n.nspname, c.relname, c.relkind, c.relreplident, c.reltuples::float8
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = %s AND CASE WHEN %s = '' THEN pg_table_is_visible(c.oid) ELSE n.nspname = %s END
  AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
_NEAR = """
SELECT CASE WHEN pg_table_is_visible(c.oid) AND %s = '' THEN c.relname ELSE n.nspname || '.' || c.relname END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
LIMIT 1000
"""
# A domain counts as the type it is made of.
_COLUMNS = """
SELECT a.attname, coalesce(b.typname, t.typname), format_type(a.atttypid, a.atttypmod),
  a.attnotnull OR coalesce(t.typnotnull, false), a.attstorage <> 'p', e.typname,
  t.typoutput::text
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_type b ON t.typtype = 'd' AND b.oid = t.typbasetype
LEFT JOIN pg_type e ON coalesce(b.typcategory, t.typcategory) = 'A' AND e.oid = coalesce(b.typelem, t.typelem)
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_PARTITIONS = """
SELECT relid::oid::bigint FROM pg_partition_tree(%s::oid::regclass) WHERE relid <> %s::oid ORDER BY 1
"""
_HEIRS = """
SELECT n.nspname || '.' || c.relname FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE i.inhparent = %s ORDER BY 1
"""
_KEY = """
SELECT a.attname, i.indisprimary, i.indisreplident FROM pg_index i
JOIN pg_attribute a ON a.attrelid = i.indrelid AND array_position(i.indkey::int2[], a.attnum) < i.indnkeyatts
WHERE i.indrelid = %s AND (i.indisprimary OR i.indisreplident)
ORDER BY i.indexrelid, array_position(i.indkey::int2[], a.attnum)
"""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        type: its type's name, or that of the type a domain is made of.
        shown: its type as somebody would write it.
        not_null: whether the table holds no null in it.
        stored_apart: whether the server may keep a long value outside of its row.
        element: the type of an array's elements; None for what is no array.
        output: the function that writes its values; of a domain, that of the type it is made of in the end.
    """

    name: str
    type: str
    shown: str
    not_null: bool
    stored_apart: bool
    element: str | None
    output: str

    @property
    def as_text(self) -> str:
        """SQL of its value as a slot says it."""
        name = quoted(self.name)
        return f"pg_catalog.{self.output}({name})::text" if self.output in CAST_OTHERWISE else f"{name}::text"

    @property
    def padded(self) -> bool:
        """Whether a slot says its values with blanks that mean nothing, which a cast to text leaves out."""
        return self.output == "bpcharout"


@dataclass(frozen=True)
class Relation:
    """A table as the server has it now.

    Attributes:
        kind: r (table), p (partitioned), v (view), m (materialized view), f (foreign).
        identity: what an update or delete says of the row it was: d (its primary key), i (an index), f (all), n (nothing).
        rows: about how many; below 0 where the server does not know.
        identified_by: the columns that an update or delete says of the row it was.
    """

    oid: int
    schema: str
    name: str
    kind: str
    identity: str
    rows: float
    columns: Mapping[str, Column]
    primary_key: tuple[str, ...]
    identified_by: tuple[str, ...]

    @property
    def identifying(self) -> tuple[str, ...]:
        """What tells one row from all others: the primary key, or else the index that is its replica identity, if any."""
        return self.primary_key or (self.identified_by if self.identity == "i" else ())

    @property
    def sql(self) -> str:
        """Its name in a statement."""
        return quoted(self.schema, self.name)

    @property
    def shown(self) -> str:
        """Its name in a sentence."""
        return f"{self.schema}.{self.name}"


def relation(session: Session, server: Server, table: str) -> Relation:
    """A table by its name.

    Raises:
        ConfigError: there is no such table, or the role must not see it.
    """
    schema, _, name = table.rpartition(".")
    found = session.row(_RELATION, name, schema, schema)
    if found is None:
        near = [each for (each,) in session.rows(_NEAR, schema)]
        raise ConfigError(Problem(f"source {server.source}", f"there is no table {table}{_nearest(table, near)}"))
    oid, schema, name, kind, identity, rows = found
    columns = {row[0]: Column(*row) for row in session.rows(_COLUMNS, oid)}
    indexed = session.rows(_KEY, oid)
    key = tuple(name for name, is_primary, _ in indexed if is_primary)
    said = {"d": key, "i": tuple(name for name, _, is_said in indexed if is_said), "f": tuple(columns)}
    return Relation(oid, schema, name, kind, identity, rows, columns, key, said.get(identity, ()))


def system_identifier(session: Session) -> str:
    """The number that a cluster got when it was made: another one is another server.

    Source: PostgreSQL manual, "System Information Functions and Operators", pg_control_system.
    """
    return str(session.value("SELECT system_identifier FROM pg_control_system()"))


def is_standby(session: Session) -> bool:
    """Whether the server only repeats what another one does: of those who write there, and of its slots, it knows nothing."""
    return bool(session.value("SELECT pg_is_in_recovery()"))


def partitions(session: Session, relation: Relation) -> tuple[int, ...]:
    """The numbers of the tables that a partitioned one is made of, at every depth; none for another table."""
    found = session.rows(_PARTITIONS, relation.oid, relation.oid) if relation.kind == "p" else []
    return tuple(oid for (oid,) in found)


def heirs(session: Session, relation: Relation) -> list[str]:
    """The tables that inherit from a table and are no partitions of it: their rows are in every SELECT of it."""
    found = session.rows(_HEIRS, relation.oid) if relation.kind != "p" else []
    return [shown for (shown,) in found]


def refuse_missing(server: Server, relation: Relation, names: Sequence[str], what: str) -> None:
    """Refuse names that are no columns of the table.

    Raises:
        ConfigError: with a sentence for each.
    """
    missing = [name for name in names if name not in relation.columns]
    if missing:
        raise ConfigError(
            *[
                Problem(
                    f"source {server.source}",
                    f"table {relation.shown} has no column {name}, which {what} names{_nearest(name, relation.columns)}",
                )
                for name in missing
            ]
        )


def refuse_gone(server: Server, relation: Relation, names: Sequence[str]) -> None:
    """Refuse to go on without columns that the schema names and that the table had.

    Raises:
        ConfigError: with a sentence for each.
    """
    if names:
        what = f"column {', '.join(names)} of {relation.shown}, which the schema names, was dropped; take it out of the schema"
        raise ConfigError(Problem(f"source {server.source}", what))


def refuse_unfit(server: Server, relation: Relation, ddl: str) -> None:
    """Refuse columns none of whose values would be one of the type that the schema says.

    Raises:
        ConfigError: with a sentence for each.
    """
    fields = fields_of(ddl)
    unfit = [(relation.columns[name], kind) for name, kind in fields.items() if not _goes(relation.columns[name], kind)]
    if unfit:
        raise ConfigError(
            *[
                Problem(
                    f"source {server.source}",
                    f"column {column.name} of {relation.shown} is {column.shown}, the schema says "
                    f"{kind.upper()}; write {_better(column)} and go on from there in the transform",
                )
                for column, kind in unfit
            ]
        )


def fields_of(ddl: str) -> dict[str, str]:
    """Names and types of the columns of a schema in Spark's DDL, read without Spark; a type as `simpleString` has it."""
    fields, depth, part, inside = {}, 0, "", ""
    for letter in f"{ddl},":
        if inside:
            inside = "" if letter == inside else inside
        elif letter in "`'\"":
            inside = letter
        depth += 0 if inside else (letter in "<(") - (letter in ">)")
        if letter == "," and not depth and not inside:
            if part.strip():
                name, kind = _field(part.strip())
                fields[name] = kind
            part = ""
        else:
            part += letter
    return fields


def _field(column: str) -> tuple[str, str]:
    if column.startswith("`"):
        name, _, rest = column[1:].replace("``", "\0").partition("`")
        name = name.replace("\0", "`")
    else:
        name, rest = _NAME.sub(r"\1", column, count=1), _NAME.sub(r"\2", column, count=1)
    kind = _MORE.split(rest.strip(" :\t\n"))[0].lower().replace(" ", "")
    return name, _WORD.sub(lambda word: SYNONYMS.get(word[0], word[0]), kind)


def _goes(column: Column, shown: str) -> bool:
    depth = 0
    while shown.startswith("array<"):
        shown, depth = shown[len("array<") : -1], depth + 1
    if depth:
        return column.element is not None and _value_goes(column.element, shown)
    return shown == "string" or (column.element is None and _value_goes(column.type, shown))


def _value_goes(stored: str, shown: str) -> bool:
    plain = shown.partition("(")[0]
    return plain in ("string", "varchar", "char") or plain in GOES_INTO.get(stored, ())


def _better(column: Column) -> str:
    of = column.element or column.type
    choices = [*GOES_INTO.get(of, ()), "string"]
    words = [f"ARRAY<{each.upper()}>" if column.element else each.upper() for each in choices]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _nearest(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
