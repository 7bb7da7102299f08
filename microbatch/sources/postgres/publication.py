"""A publication: which tables, rows and kinds of change a server tells a slot.

A slot tells a change by what the publication was when the change was made. So one that leaves a table out for a while leaves out
for good what was written then, and nothing later shows it but the numbers of the rows that hold it together.

Source: PostgreSQL manual, "ALTER PUBLICATION"; "pg_publication", "pg_publication_rel", "pg_publication_namespace".
"""

from __future__ import annotations

from collections.abc import Sequence

from microbatch.sources.postgres.catalog import Relation
from microbatch.sources.postgres.connection import Session, quoted

BY_SCHEMAS = 150000  # from this version on a publication may name schemas, leave out columns, and leave out rows
_TELLS = "SELECT pubinsert, pubupdate, pubdelete, pubtruncate FROM pg_publication WHERE pubname = %s"
_TELLS_TABLE = "SELECT true FROM pg_publication_tables WHERE pubname = %s AND schemaname = %s AND tablename = %s"
_COLUMNS = (
    "SELECT unnest(attnames) FROM pg_publication_tables WHERE pubname = %s AND schemaname = %s AND tablename = %s"
)
_ROWS = "SELECT rowfilter FROM pg_publication_tables WHERE pubname = %s AND schemaname = %s AND tablename = %s"
# Of a partition the names it is told by: its own, or that of the table it is a part of.
_WHOLE = """
SELECT p.oid::bigint, (p.pubviaroot AND (c.relkind = 'p' OR c.relispartition))::int
FROM pg_publication p, pg_class c
WHERE p.pubname = %s AND p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AND c.oid = %s
"""
_ABOVE = "SELECT %s::oid UNION SELECT relid FROM pg_partition_ancestors(%s::oid::regclass)"
_OF_TABLES = f"SELECT oid::bigint FROM pg_publication_rel WHERE prpubid = %s AND prrelid IN ({_ABOVE}) ORDER BY oid"
_OF_SCHEMAS = f"""
SELECT oid::bigint FROM pg_publication_namespace
WHERE pnpubid = %s AND pnnspid IN (SELECT relnamespace FROM pg_class WHERE oid IN ({_ABOVE})) ORDER BY oid
"""


def exists(session: Session, name: str) -> bool:
    """Whether there is such a publication."""
    return session.row(_TELLS, name) is not None


def bond(session: Session, name: str, relation: Relation) -> tuple[int, ...]:
    """What ties a table to a publication, in numbers that never come again; empty where there is none that tells all.

    The publication's own, whether it tells parts by the whole, and those of the rows that make the table or its schema a part
    of it (none for one of all tables). A table that was taken out and put back has another one, as has one whose rows or
    columns were chosen anew.
    """
    found = session.row(_WHOLE, name, relation.oid)
    if found is None:
        return ()
    members = session.rows(_OF_TABLES, found[0], relation.oid, relation.oid)
    if _version(session) >= BY_SCHEMAS:
        members += session.rows(_OF_SCHEMAS, found[0], relation.oid, relation.oid)
    return (*found, *[oid for (oid,) in members])


def unfit(session: Session, name: str, relation: Relation, names: Sequence[str]) -> list[str]:
    """Why a publication does not tell all of a table's changes, with what does away with it; one that is missing will be made.

    Args:
        names: the columns of the schema.
    """
    found = session.row(_TELLS, name)
    if found is None:
        return []
    this, table = f"publication {name}", (name, relation.schema, relation.name)
    if not session.row(_TELLS_TABLE, *table):
        add = f"ALTER PUBLICATION {quoted(name)} ADD TABLE {relation.sql}"
        return [f"{this} does not publish {relation.shown}: {add}"]
    told = []
    if not all(found):
        these = "insert, update, delete, truncate"
        told.append(f"{this} must publish all of {these}: ALTER PUBLICATION … SET (publish = '{these}')")
    if _version(session) >= BY_SCHEMAS:
        published = [each for (each,) in session.rows(_COLUMNS, *table)]
        left_out = [column for column in names if column not in published]
        told += [f"{this} leaves out column {column}, which the schema names" for column in left_out]
        if condition := session.value(_ROWS, *table):
            told.append(
                f"{this} leaves out rows of {relation.shown}, those without {condition}; publish it without WHERE"
            )
    return told


def _version(session: Session) -> int:
    return int(session.value("SHOW server_version_num"))
