"""A publication and a slot: what a server keeps for one reader of changes.

Source: PostgreSQL manual, "Logical Decoding", "Replication Management Functions", "pg_replication_slots".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from microbatch.errors import ConfigError, MicrobatchError, Problem, SourceUnavailable, StateChanged
from microbatch.sources.postgres import publication
from microbatch.sources.postgres.catalog import Relation, heirs, is_standby
from microbatch.sources.postgres.connection import PRIMARY, START_ANEW, Server, Session, literal, quoted
from microbatch.sources.postgres.pgoutput import Decoder, Snapshot

WAIT_S = 60  # for open transactions, before a slot or the first copy can begin
_SLOT = """
SELECT plugin, database, wal_status, (restart_lsn - '0/0')::bigint, (confirmed_flush_lsn - '0/0')::bigint,
  (pg_current_wal_flush_lsn() - '0/0')::bigint, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
FROM pg_replication_slots WHERE slot_name = %s
"""


@dataclass(frozen=True)
class Standing:
    """A slot as it is now. Positions are bytes of the log.

    Attributes:
        lost: whether the server has thrown away log that the slot needs.
        confirmed: what commits before it is not told any more.
        written: where the server's log ends.
        lag_bytes: log that the server keeps for the slot.
    """

    plugin: str
    database: str
    lost: bool
    restart: int | None
    confirmed: int
    written: int
    lag_bytes: int


@dataclass(frozen=True)
class Waiting:
    """A transaction that waits in the slot.

    Attributes:
        commit: where its commit begins.
        end: behind it.
        changes: of the table.
    """

    commit: int
    end: int
    changes: int


@dataclass(frozen=True)
class Look:
    """What a slot was seen to hold.

    Attributes:
        upto: how far was looked: of what is behind it nobody knows anything.
        waiting: the transactions before it that change the table, commit by commit.
    """

    upto: int
    waiting: list[Waiting]


@dataclass(frozen=True)
class Slot:
    """A slot and its publication, by name."""

    server: Server
    name: str
    publication: str

    def standing(self, session: Session) -> Standing | None:
        """How it is, or None where there is none.

        Raises:
            SourceUnavailable: the server is a standby, for a moment or for good.
        """
        if is_standby(session):
            raise SourceUnavailable(self.server.source, f"the server is a standby, which has no such slot; {PRIMARY}")
        found = session.row(_SLOT, self.name)
        if found is None:
            return None
        plugin, database, status, restart, confirmed, written, lag = found
        return Standing(
            plugin, database, status == "lost" or restart is None, restart, confirmed or 0, written, lag or 0
        )

    def refuse_unfit(self, session: Session, relation: Relation, names: Sequence[str], key: Sequence[str]) -> None:
        """Refuse what could not be read in full, or would make the table's own writers fail.

        Args:
            names: the columns of the schema.
            key: of conf; where it names none, the table's primary key is meant.

        Raises:
            ConfigError: with every reason, and the statement that does away with it.
        """
        told = [
            *_of_server(session),
            *_of_table(relation, key or relation.primary_key, heirs(session, relation)),
            *publication.unfit(session, self.publication, relation, names),
        ]
        if told:
            raise ConfigError(*[Problem(f"source {self.server.source}", what) for what in told])

    def ensure_publication(self, session: Session, relation: Relation) -> None:
        """Make the publication where it is missing."""
        if not publication.exists(session, self.publication):
            root = " WITH (publish_via_partition_root = true)" if relation.kind == "p" else ""
            try:
                self._make(session, f"CREATE PUBLICATION {quoted(self.publication)} FOR TABLE {relation.sql}{root}")
            except MicrobatchError:
                # Flows that read one source share it, and two that begin side by side both found none: only one can make it.
                if not publication.exists(session, self.publication):
                    raise

    def ensure(self, session: Session) -> bool:
        """Make the slot where it is missing, or anew where it was lost; whether it was made.

        Raises:
            SourceUnavailable: transactions are open for longer than anybody waits.
        """
        standing = self.standing(session)
        if standing is not None and not standing.lost:
            return False
        if standing is not None:
            session.do("SELECT pg_drop_replication_slot(%s)", self.name)
        session.do(f"SET lock_timeout = '{WAIT_S}s'")
        self._make(session, f"SELECT pg_create_logical_replication_slot({literal(self.name)}, 'pgoutput')")
        return True

    def refuse_lost(self, session: Session, read_upto: int) -> Standing:
        """How it is, or why it must not be gone on with.

        Args:
            read_upto: the position up to which everything was read.

        Raises:
            StateChanged: changes behind that position are gone, or it is none of this log's.
        """
        standing = self.standing(session)
        if standing is None:
            raise self._lost("is gone")
        if standing.lost:
            raise self._lost(
                "was left behind further than max_slot_wal_keep_size allows: the server threw the log away"
            )
        if standing.confirmed > read_upto:
            raise self._lost("was made anew, or moved on by somebody else, past changes that were not read")
        if standing.written < read_upto:
            what = (
                f"source {self.server.source}: the log of the server ends at {position(standing.written)}, and was read up to "
                f"{position(read_upto)}: it was set back to an older state, and what is written now comes at positions that "
                "were read before"
            )
            raise StateChanged(self.server.flow, what, START_ANEW)
        return standing

    def look(
        self, session: Session, relation: Relation, after: int, upto: int, snapshot: Snapshot | None, most: int
    ) -> Look:
        """What waits between two positions; of the slot's messages about `most` are looked at, in whole transactions."""
        oid = f"'\\x{relation.oid:08x}'::bytea"
        row = f"get_byte(data, 0) IN (73, 85, 68) AND substring(data from 2 for 4) = {oid}"
        emptied = f"get_byte(data, 0) = 84 AND position({oid} in data) > 0"
        statement = f"""
            SELECT xid::text::bigint, max(encode(substring(data from 2 for 8), 'hex')) FILTER (WHERE get_byte(data, 0) = 66),
              max(encode(substring(data from 11 for 8), 'hex')) FILTER (WHERE get_byte(data, 0) = 67),
              count(*) FILTER (WHERE ({row}) OR ({emptied})), count(*)
            FROM {self.messages(upto, most)} GROUP BY 1"""
        found, seen, looked = [], 0, 0
        for xid, begin, end, changes, messages in session.rows(statement):
            commit, behind = int(begin, 16), int(end, 16)
            seen, looked = seen + messages, max(looked, behind)
            skipped = snapshot is not None and snapshot.holds(xid, commit)
            if changes and after <= commit < upto and not skipped:
                found.append(Waiting(commit, behind, changes))
        whole = seen < most
        return Look(upto if whole else min(looked, upto), sorted(found, key=lambda each: each.commit))

    def messages(self, upto: int, most: int | None = None) -> str:
        """SQL of what the slot says, the same each time: `lsn`, `xid`, `data`."""
        options = f"'proto_version', '1', 'publication_names', {literal(quoted(self.publication))}"
        limit = "NULL" if most is None else str(most)
        return (
            f"pg_logical_slot_peek_binary_changes({literal(self.name)}, {literal(position(upto))}, {limit}, {options})"
        )

    def release(self, session: Session, upto: int) -> None:
        """Let the server throw away what is done with: everything before a position that Spark has committed."""
        standing = self.standing(session)
        if standing is not None and not standing.lost and standing.confirmed < upto <= standing.written:
            session.do("SELECT pg_replication_slot_advance(%s, %s::pg_lsn)", self.name, position(upto))

    def bond(self, session: Session, relation: Relation) -> tuple[int, ...]:
        """What ties the table to the publication; see `publication`."""
        return publication.bond(session, self.publication, relation)

    def _make(self, session: Session, statement: str) -> None:
        try:
            with self.server.errors():
                session.do(statement)
        except ConfigError as cause:
            why = "; ".join(problem.what for problem in cause.problems)
            what = f"{why}; somebody who may has to run, once: {statement}"
            raise ConfigError(Problem(f"source {self.server.source}", what)) from None

    def _lost(self, what: str) -> StateChanged:
        return StateChanged(
            self.server.flow, f"source {self.server.source}: replication slot {self.name} {what}", START_ANEW
        )


def decoder(relation: Relation, key: tuple[str, ...], after: int, upto: int, snapshot: Snapshot | None) -> Decoder:
    """A decoder of the table's changes between two positions."""
    filled = frozenset(column.name for column in relation.columns.values() if column.padded)
    return Decoder(relation.oid, key or relation.identifying, after, upto, snapshot, filled)


def position(lsn: int) -> str:
    """A position of the log as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def _of_server(session: Session) -> list[str]:
    level = session.value("SHOW wal_level")
    return (
        [] if level == "logical" else [f"the server's wal_level is {level}; mode changes needs logical, and a restart"]
    )


def _of_table(relation: Relation, key: Sequence[str], heirs: Sequence[str]) -> list[str]:
    if relation.kind not in ("r", "p"):
        return [f"{relation.shown} is no table: only a table has changes; read it with mode: cursor"]
    if heirs:
        return [
            f"{', '.join(heirs)} inherits from {relation.shown}: those rows are its rows, and their changes are not told as its "
            "own; read it with mode: cursor"
        ]
    if not relation.identified_by:
        # Once it is published, the server refuses every UPDATE and DELETE of such a table.
        return [
            f"{relation.shown} has nothing that identifies a row in its changes: give it a primary key, or "
            f"ALTER TABLE {relation.sql} REPLICA IDENTITY FULL"
        ]
    if unsaid := [name for name in key if name not in relation.identified_by]:
        return [
            f"an update or delete of {relation.shown} says {', '.join(relation.identified_by)} of the row it was, and not "
            f"{', '.join(unsaid)} of the key: ALTER TABLE {relation.sql} REPLICA IDENTITY FULL"
        ]
    return []
