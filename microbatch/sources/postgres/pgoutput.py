"""What a slot says: the messages of PostgreSQL's own plugin, pgoutput, as the inserts, updates and deletes of one table.

A message has the position of the change it is of, and a record of the log that holds many rows gives them all the same one. Each
such row is given the next byte of that record, so that no two changes share a position.

Source: PostgreSQL manual, "Logical Replication Message Formats", protocol version 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Final, NamedTuple

EPOCH_US = 946_684_800_000_000  # PostgreSQL counts microseconds from 2000-01-01, everybody else from 1970
PADDED = 1042  # char(n) is filled with blanks that mean nothing
BEGIN, COMMIT, RELATION, INSERT, UPDATE, DELETE, TRUNCATE = (ord(letter) for letter in "BCRIUDT")
NULL, UNCHANGED, NEW, OLD, KEY = (ord(letter) for letter in "nuNOK")

_BEGIN, _RELATION, _COLUMN = Struct(">QqI"), Struct(">BH"), Struct(">II")
_SHORT, _INT = Struct(">H"), Struct(">I")


class Unsent:
    """Stands for a value that was not changed, lies outside of its row, and so was not sent."""

    def __repr__(self) -> str:
        return "UNSENT"


UNSENT: Final = Unsent()
Value = str | None | Unsent


class Change(NamedTuple):
    """One change of a row.

    Attributes:
        op: insert, update or delete. A change of the key is a delete of the old one and an insert.
        lsn: its position in the log, in bytes; no two changes have the same.
        committed_us: when its transaction was committed, in microseconds since 1970.
        xid: its transaction.
        names: of all columns of the table at that time.
        values: as text; of a deleted row only those that identify it, where the table's replica identity is not FULL.
    """

    op: str
    lsn: int
    committed_us: int
    xid: int
    names: tuple[str, ...]
    values: tuple[Value, ...]


class Truncated(Exception):
    """The table was emptied at once: which rows are gone, nobody says."""


@dataclass
class Transaction:
    """The one under way.

    Attributes:
        commit_lsn: where its commit begins.
    """

    commit_lsn: int
    committed_us: int
    xid: int


@dataclass
class _Shape:
    names: tuple[str, ...]
    padded: tuple[bool, ...]
    key: tuple[int, ...]


@dataclass
class Decoder:
    """Reads messages in the order a slot gives them.

    Attributes:
        oid: the table's.
        key: the columns that identify a row; empty: those the messages mark.
        after, upto: takes the transactions whose commit begins at `after` or later, and before `upto`.
        snapshot: of the first copy, whose transactions are not told a second time.
        filled: columns of a domain over char(n), which a message does not show to be one.
    """

    oid: int
    key: tuple[str, ...] = ()
    after: int = 0
    upto: int = 2**63
    snapshot: Snapshot | None = None
    filled: frozenset[str] = frozenset()
    _now: Transaction | None = field(default=None, init=False)
    _shape: _Shape | None = field(default=None, init=False)
    _last: int = field(default=-1, init=False)
    _more: int = field(default=0, init=False)

    def changes(self, messages: Iterable[tuple[int, bytes]]) -> Iterator[Change]:
        """The changes of the table.

        Args:
            messages: position and body.

        Raises:
            Truncated: the table was truncated.
        """
        for lsn, body in messages:
            kind = body[0]
            if kind == BEGIN:
                self._begin(body)
            elif kind == RELATION:
                self._relation(body)
            elif self._now is None:
                continue
            elif kind == TRUNCATE:
                if self.oid in _oids(body):
                    raise Truncated
            elif kind in (INSERT, UPDATE, DELETE) and _INT.unpack_from(body, 1)[0] == self.oid:
                yield from self._row(lsn, kind, body)

    def _begin(self, body: bytes) -> None:
        commit_lsn, microseconds, xid = _BEGIN.unpack_from(body, 1)
        wanted = self.after <= commit_lsn < self.upto
        copied = self.snapshot is not None and self.snapshot.holds(xid, commit_lsn)
        self._now = Transaction(commit_lsn, microseconds + EPOCH_US, xid) if wanted and not copied else None

    def _relation(self, body: bytes) -> None:
        if _INT.unpack_from(body, 1)[0] != self.oid:
            return
        at = body.index(0, 5) + 1
        at = body.index(0, at) + 1
        _, count = _RELATION.unpack_from(body, at)
        at += _RELATION.size
        names, padded, marked = [], [], []
        for number in range(count):
            if body[at] & 1:
                marked.append(number)
            end = body.index(0, at + 1)
            names.append(body[at + 1 : end].decode())
            padded.append(_COLUMN.unpack_from(body, end + 1)[0] == PADDED or names[-1] in self.filled)
            at = end + 1 + _COLUMN.size
        key = tuple(names.index(name) for name in self.key if name in names) or (
            tuple(marked) if len(marked) < len(names) else ()
        )
        self._shape = _Shape(tuple(names), tuple(padded), key)

    def _row(self, lsn: int, kind: int, body: bytes) -> Iterator[Change]:
        before: tuple[Value, ...] | None = None
        mark, at = body[5], 6
        if mark in (OLD, KEY):
            before, at = self._values(body, at)
            if kind == UPDATE:
                at += 1
        if kind == DELETE:
            assert before is not None
            yield self._change("delete", lsn, before)
            return
        values, _ = self._values(body, at)
        if before is None:
            yield self._change("insert" if kind == INSERT else "update", lsn, values)
            return
        if mark == OLD:
            values = tuple(was if now is UNSENT else now for was, now in zip(before, values, strict=True))
        shape = self._shape
        assert shape is not None
        if mark == KEY or any(before[at] != values[at] for at in shape.key):
            yield self._change("delete", lsn, before)
            yield self._change("insert", lsn, values)
        else:
            yield self._change("update", lsn, values)

    def _change(self, op: str, lsn: int, values: tuple[Value, ...]) -> Change:
        now, shape = self._now, self._shape
        assert now is not None and shape is not None
        self._more = self._more + 1 if lsn == self._last else 0
        self._last = lsn
        return Change(op, lsn + self._more, now.committed_us, now.xid, shape.names, values)

    def _values(self, body: bytes, at: int) -> tuple[tuple[Value, ...], int]:
        shape = self._shape
        assert shape is not None  # a slot tells of a table before it tells of its rows
        (count,) = _SHORT.unpack_from(body, at)
        at += 2
        values: list[Value] = []
        for number in range(count):
            kind = body[at]
            at += 1
            if kind == NULL:
                values.append(None)
            elif kind == UNCHANGED:
                values.append(UNSENT)
            else:
                (length,) = _INT.unpack_from(body, at)
                at += 4
                text = body[at : at + length].decode()
                values.append(text.rstrip(" ") if shape.padded[number] else text)
                at += length
        return tuple(values), at


@dataclass(frozen=True)
class Snapshot:
    """Which transactions a copy of the table holds already.

    Attributes:
        below: the log's position after the copy began: a later commit is not in it.
        first_open: the oldest transaction that was open.
        next: the first that had not begun.
        open: those between that were open.
    """

    below: int
    first_open: int
    next: int
    open: frozenset[int]

    @staticmethod
    def of(text: str, below: int) -> Snapshot:
        """A snapshot as PostgreSQL writes it, `xmin:xmax:xip_list`."""
        first, next_, open_ = text.split(":")
        return Snapshot(below, int(first), int(next_), frozenset(int(each) for each in open_.split(",") if each))

    def holds(self, xid: int, commit_lsn: int) -> bool:
        """Whether a committed transaction was seen; `xid` has 32 bits, and the snapshot's go on where those begin anew."""
        if commit_lsn >= self.below:
            return False
        apart = (xid - self.next) & 0xFFFFFFFF
        whole = self.next + (apart - (1 << 32) if apart >= 1 << 31 else apart)
        return whole < self.next and (whole < self.first_open or whole not in self.open)


def _oids(body: bytes) -> Sequence[int]:
    (count,) = _INT.unpack_from(body, 1)
    return [_INT.unpack_from(body, 6 + 4 * number)[0] for number in range(count)]
