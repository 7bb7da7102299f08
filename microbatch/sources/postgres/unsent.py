"""Values that a slot does not tell: long ones, stored outside of their row, that an update left as they were.

With REPLICA IDENTITY FULL the row as it was is told too, and nothing is missing. Without it the value is looked for: among the
changes of the same row in the same block, and on the server where the row has not been changed again since. Whether it has
is seen by the transaction that wrote its version, or, where that is a part of another one (a savepoint), by what the slot
has told of it by then. What is found is exactly the value the row had; where none is, the row goes to quarantine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from microbatch.sources.postgres.catalog import Relation
from microbatch.sources.postgres.connection import Server, Session, literal, quoted
from microbatch.sources.postgres.pgoutput import UNSENT, Change, Value

Key = tuple[Value, ...]
ASKED = 500  # rows asked for in one statement


def filled(
    server: Server,
    relation: Relation,
    key: Sequence[str],
    names: Sequence[str],
    changes: list[Change],
    last: Callable[[int], Mapping[Key, int]],
) -> tuple[list[Change], dict[int, str]]:
    """The changes with every value that can be known, and what is wrong with those that have one which cannot.

    Args:
        key: what identifies a row; empty where nobody knows: then nothing can be looked for.
        names: the columns that are wanted.
        changes: in their order.
        last: for each row the position of its last change before a position of the log.
    """
    lacking = {at for at, change in enumerate(changes) if any(value is UNSENT for value in change.values)}
    lacking = {at for at in lacking if any(changes[at].values[changes[at].names.index(n)] is UNSENT for n in names)}
    if not lacking:
        return changes, {}
    rows = [dict(zip(change.names, change.values, strict=True)) for change in changes]
    for row in rows:
        for name in row.keys() - set(names) - set(key):
            del row[name]
    keys: list[Key] = [tuple(row.get(name) for name in key) for row in rows]
    if key:
        _forward(rows, keys, changes)
        _backward(rows, keys, changes, _asked(server, relation, key, names, rows, keys, changes, last))
    problems = {
        at: f"{', '.join(missing)} was not sent (long, unchanged) and the row changed again since; "
        f"ALTER TABLE {relation.sql} REPLICA IDENTITY FULL has it sent"
        for at in sorted(lacking)
        if (missing := [name for name in names if rows[at][name] is UNSENT])
    }
    made = [
        change._replace(names=tuple(row), values=tuple(None if value is UNSENT else value for value in row.values()))
        for change, row in zip(changes, rows, strict=True)
    ]
    return made, problems


def _forward(rows: list[dict[str, Value]], keys: list[Key], changes: list[Change]) -> None:
    """An update that leaves a value as it was has the one of the change before it."""
    before: dict[Key, Mapping[str, Value]] = {}
    for at, row in enumerate(rows):
        known = before.get(keys[at])
        if known is not None and changes[at].op == "update":
            row.update({name: known[name] for name, value in row.items() if value is UNSENT})
        if changes[at].op == "delete":
            before.pop(keys[at], None)
        else:
            before[keys[at]] = row


def _backward(
    rows: list[dict[str, Value]], keys: list[Key], changes: list[Change], stored: Mapping[int, Mapping[str, Value]]
) -> None:
    """A value that a later update left as it was is the one the row had before that update too."""
    after: dict[Key, tuple[int, set[str]]] = {}
    for at in range(len(rows) - 1, -1, -1):
        row = rows[at]
        left_alone = {name for name, value in row.items() if value is UNSENT}
        if at in stored:
            row.update({name: stored[at].get(name) for name in left_alone})
        elif keys[at] in after:
            later, names = after[keys[at]]
            row.update({name: rows[later][name] for name in left_alone & names})
        if changes[at].op == "update":
            after[keys[at]] = (at, left_alone)
        else:
            after.pop(keys[at], None)


def _asked(
    server: Server,
    relation: Relation,
    key: Sequence[str],
    names: Sequence[str],
    rows: list[dict[str, Value]],
    keys: list[Key],
    changes: list[Change],
    last: Callable[[int], Mapping[Key, int]],
) -> dict[int, dict[str, Value]]:
    """What the server has for the newest change of each row, where that change is the newest there is."""
    newest = {each: at for at, each in enumerate(keys)}
    wanted = [at for at in newest.values() if any(value is UNSENT for value in rows[at].values())]
    columns = [*key, *names]
    chosen = ", ".join(relation.columns[name].as_text for name in columns)
    found: dict[int, dict[str, Value]] = {}
    doubtful: dict[int, dict[str, Value]] = {}
    with server.session() as session:
        for start in range(0, len(wanted), ASKED):
            some = wanted[start : start + ASKED]
            these = ", ".join(f"({', '.join(literal(str(value)) for value in keys[at])})" for at in some)
            statement = (
                f"SELECT xmin::text::bigint, {chosen} FROM {relation.sql} "
                f"WHERE ({', '.join(quoted(name) for name in key)}) IN ({these})"
            )
            for xid, *values in session.rows(statement):
                at = newest.get(tuple(values[: len(key)]), -1)
                row = dict(zip(columns, values, strict=True))
                if (
                    at >= 0
                ):  # the version that this change made, or that of a part of its transaction, or of a later one
                    (found if changes[at].xid == xid else doubtful)[at] = row
        upto = _flushed(session) if doubtful else 0
    lasts = last(upto) if doubtful else {}
    return found | {at: row for at, row in doubtful.items() if lasts.get(keys[at]) == changes[at].lsn}


def _flushed(session: Session) -> int:
    """A position of the log behind all that can be seen now, and that a slot can tell up to."""
    upto = int(session.value("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"))
    while int(session.value("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint")) < upto:
        time.sleep(0.05)  # a commit that did not wait for the disk is written within a second
        session.do("SELECT pg_logical_emit_message(true, 'microbatch', '')")
    return upto
