"""How far a reader by cursor may go: below every value that a transaction still open can come with.

A transaction that began at 12:00 and commits at 12:10 leaves rows whose `updated_at DEFAULT now()` says 12:00. A reader that has
passed 12:05 by then never sees them. Two ways to know better:

    by the clock   a timestamptz cursor is not older than its transaction: the reader stays below the start of the oldest open one
    by ceilings    any other cursor: the largest value seen is safe once every transaction that was open then has ended.
                   Where one stays open for long, a value seen before it began is what a run goes up to.

What no reader by cursor can know: a value that is older than its transaction (taken from another machine's clock, or from a
sequence before BEGIN). `settle_s` is for the first, mode changes for both.

All of this is the primary's to know: a standby is refused.

Source: PostgreSQL manual, "The Cumulative Statistics System", pg_stat_activity; "pg_locks"; "pg_prepared_xacts".
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass

from microbatch.places import Place, write
from microbatch.sources.postgres.catalog import Column, Relation
from microbatch.sources.postgres.connection import APPLICATION, Session, literal, quoted

FRESH_S = 0.1  # from the moment a server takes a transaction's time stamp until others can see it; more than enough
DRAIN_S = 2.0  # how long a run waits for transactions to end; most take milliseconds
PREPARED_S = 3600  # how long before it was prepared a transaction may have begun; the server does not tell
ZONES_S = 12 * 3600  # a timestamp without a zone is at most so much older in UTC than it looks
MOST_CEILINGS = 32

# Who could still write: sessions of this database that somebody opened, but for those of the engine, which only read.
_OTHERS = f"""
a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.usesysid IS NOT NULL
  AND a.application_name IS DISTINCT FROM '{APPLICATION}' AND coalesce(a.backend_type, '') <> 'walsender'
"""
_OLDEST = f"SELECT min(a.xact_start)::text FROM pg_stat_activity a WHERE {_OTHERS}"
_OLDEST_PREPARED = f"""
SELECT (min(prepared) - interval '{PREPARED_S} s')::text FROM pg_prepared_xacts WHERE database = current_database()
"""
_UNSEEN = f"""
SELECT count(*) FROM pg_stat_activity a WHERE {_OTHERS} AND NOT pg_has_role(a.usesysid, 'USAGE')
  AND NOT pg_has_role('pg_read_all_stats', 'USAGE')
"""
_OPEN = f"""
SELECT DISTINCT l.virtualtransaction FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'virtualxid' AND l.virtualxid = l.virtualtransaction AND {_OTHERS}
"""
# A value that the writing statement itself takes (a sequence, a trigger) is taken under the table's lock.
_WRITING = """
AND (a.backend_xid IS NOT NULL OR EXISTS (
  SELECT FROM pg_locks w WHERE w.pid = a.pid AND w.relation = ANY (%s::oid[])
    AND w.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')))
"""
_PARTS = "SELECT relid::oid::bigint FROM pg_partition_tree(%s::oid::regclass) UNION SELECT %s"
_PREPARED = "SELECT gid, prepared::text FROM pg_prepared_xacts WHERE database = current_database()"


@dataclass(frozen=True)
class Ceiling:
    """The largest value of the cursor that was seen at a time, and who was open then.

    Attributes:
        at: the server's time.
        open: virtual transactions and names of prepared ones.
    """

    value: str
    at: str
    open: frozenset[str]


class Ceilings:
    """What was seen in earlier runs, in a file of the checkpoint."""

    def __init__(self, checkpoint: Place) -> None:
        self.file = checkpoint / "microbatch" / "ceilings.json"

    def read(self) -> list[Ceiling]:
        if not self.file.exists():
            return []
        return [
            Ceiling(each["value"], each["at"], frozenset(each["open"])) for each in json.loads(self.file.read_text())
        ]

    def write(self, ceilings: Iterable[Ceiling]) -> None:
        kept = [{"value": c.value, "at": c.at, "open": sorted(c.open)} for c in ceilings][-MOST_CEILINGS:]
        write(self.file, json.dumps(kept))


@dataclass(frozen=True)
class Horizon:
    """How far a reader of one table may go.

    Attributes:
        settle_s: rows younger than that wait.
        ceilings: what was seen in earlier runs.
    """

    relation: Relation
    cursor: Column
    settle_s: float
    ceilings: Ceilings

    def safe(self, session: Session, keep: bool) -> str | None:
        """The largest value of the cursor up to which no row can come any more, as text; None where there is none yet.

        Args:
            keep: whether to wait for those that are open, and to write down what was seen, for later runs.
        """
        sees = not session.value(_UNSEEN)
        if self.cursor.type == "timestamptz" and sees:
            if keep and blind(session):  # at the next run there may be somebody whom it does not see
                self._by_ceilings(session, keep, wait_s=0)
            return self._largest(session, f"< {literal(self._oldest(session))}")
        known = self._by_ceilings(session, keep, DRAIN_S if keep else 0)
        if self.cursor.type == "timestamp" and sees:
            since = "SELECT (%s::timestamptz - make_interval(secs => %s))::timestamp::text"
            old = session.value(since, self._oldest(session), ZONES_S)
            return self._largest(session, f"< {literal(old)}", *([f"<= {literal(known)}"] if known else []))
        return known

    def _largest(self, session: Session, *bounds: str) -> str | None:
        """The largest value, within any of the bounds where there are such."""
        cursor = quoted(self.cursor.name)
        within = " OR ".join(f"{cursor} {bound}::{self.cursor.type}" for bound in bounds) or "true"
        found = session.value(largest(f"t.{cursor}::text", self.relation, self.cursor.name, within))
        return None if found is None else str(found)

    def _oldest(self, session: Session) -> str:
        """The start of the oldest open transaction, at most now less `settle_s`."""
        cursor = quoted(self.cursor.name)
        now = session.value("SELECT clock_timestamp()::text")
        since = f"{literal(now)}::timestamptz - interval '{FRESH_S} s'"
        if session.value(f"SELECT max({cursor}) >= {since} FROM {self.relation.sql}"):
            time.sleep(FRESH_S)
        # In this order: a transaction that is prepared meanwhile is in the first, the second or both.
        begun, prepared = session.value(_OLDEST), session.value(_OLDEST_PREPARED)
        settled = "%s::timestamptz - make_interval(secs => %s)"
        floor = f"SELECT least({settled}, %s::timestamptz, %s::timestamptz)::text"
        return str(session.value(floor, now, self.settle_s, begun, prepared))

    def _by_ceilings(self, session: Session, keep: bool, wait_s: float) -> str | None:
        seen, value = self.ceilings.read(), self._largest(session)
        at, open_ = self._now_open(session)
        if value is not None and (not seen or seen[-1].value != value):
            seen.append(Ceiling(value, at, open_))
        deadline = time.monotonic() + wait_s
        while (free := self._free(session, seen)) < len(seen) - 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        if keep:
            self.ceilings.write(seen[max(free, 0) :])
        return seen[free].value if free >= 0 else None

    def _free(self, session: Session, seen: list[Ceiling]) -> int:
        """The position of the newest ceiling that nobody is under any more, -1 for none."""
        at, now_open = self._now_open(session)
        prepared = session.rows(_PREPARED)
        ask = "SELECT c <= %s::timestamptz - make_interval(secs => %s) FROM unnest(%s::timestamptz[]) c"
        settled = [each for (each,) in session.rows(ask, at, self.settle_s, [c.at for c in seen])]
        later = "SELECT coalesce(bool_or(p >= %s::timestamptz), false) FROM unnest(%s::timestamptz[]) p"
        for position in range(len(seen) - 1, -1, -1):
            ceiling = seen[position]
            if not settled[position] or ceiling.open & now_open:
                continue
            if prepared and session.value(later, ceiling.at, [when for _, when in prepared]):
                continue  # it may be one of those that were open, under another name
            return position
        return -1

    def _now_open(self, session: Session) -> tuple[str, frozenset[str]]:
        """The server's time, and then who could still come with a value below what is there."""
        at = str(session.value("SELECT clock_timestamp()::text"))
        if self.cursor.type in ("timestamp", "timestamptz") or self.relation.kind not in ("r", "p"):
            open_ = [each for (each,) in session.rows(_OPEN)]
        else:
            parts = [each for (each,) in session.rows(_PARTS, self.relation.oid, self.relation.oid)]
            open_ = [each for (each,) in session.rows(_OPEN + _WRITING, parts)]
        return at, frozenset([*open_, *[name for name, _ in session.rows(_PREPARED)]])


def largest(select: str, relation: Relation, column: str, within: str = "true") -> str:
    """SQL of the row, called `t`, with the largest value of a column; not by `max`, which no uuid has before PostgreSQL 18."""
    name = quoted("t", column)
    return f"SELECT {select} FROM {relation.sql} t WHERE {name} IS NOT NULL AND ({within}) ORDER BY {name} DESC LIMIT 1"


def blind(session: Session) -> bool:
    """Whether the role cannot see when the transactions of others began."""
    return not session.value("SELECT pg_has_role('pg_read_all_stats', 'USAGE')")
