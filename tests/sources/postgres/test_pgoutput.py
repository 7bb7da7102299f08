"""The messages of a slot, byte by byte, without a server."""

from __future__ import annotations

from struct import pack

import pytest

from microbatch.sources.postgres.pgoutput import UNSENT, Change, Decoder, Snapshot, Truncated

OID, INT8, TEXT, CHAR = 16384, 20, 25, 1042
SECOND = 1_000_000


def begin(commit_lsn: int = 900, xid: int = 7) -> tuple[int, bytes]:
    return commit_lsn, b"B" + pack(">QqI", commit_lsn, 5 * SECOND, xid)


def relation(*columns: tuple[str, int, bool], oid: int = OID) -> tuple[int, bytes]:
    told = b"".join(bytes([key]) + name.encode() + b"\0" + pack(">II", kind, 0xFFFFFFFF) for name, kind, key in columns)
    return 0, b"R" + pack(">I", oid) + b"public\0orders\0" + b"d" + pack(">H", len(columns)) + told


def values(*each: object) -> bytes:
    parts = []
    for value in each:
        if value is None or value is UNSENT:
            parts.append(b"n" if value is None else b"u")
        else:
            text = str(value).encode()
            parts.append(b"t" + pack(">I", len(text)) + text)
    return pack(">H", len(each)) + b"".join(parts)


def insert(lsn: int, *row: object, oid: int = OID) -> tuple[int, bytes]:
    return lsn, b"I" + pack(">I", oid) + b"N" + values(*row)


def update(lsn: int, row: tuple, mark: bytes = b"", before: tuple = ()) -> tuple[int, bytes]:
    return lsn, b"U" + pack(">I", OID) + (mark + values(*before) if mark else b"") + b"N" + values(*row)


def delete(lsn: int, mark: bytes, before: tuple) -> tuple[int, bytes]:
    return lsn, b"D" + pack(">I", OID) + mark + values(*before)


TABLE = relation(("id", INT8, True), ("note", TEXT, False))
FULL = relation(("id", INT8, True), ("note", TEXT, True))


def decoded(*messages: tuple[int, bytes], **more: object) -> list[Change]:
    return list(Decoder(OID, **more).changes(messages))  # type: ignore[arg-type]


def told(*messages: tuple[int, bytes], **more: object) -> list[tuple]:
    return [(change.op, change.lsn, change.values) for change in decoded(begin(), *messages, **more)]


def test_an_insert_has_its_position_its_transaction_and_when_that_was_committed():
    (change,) = decoded(begin(), TABLE, insert(100, 1, "a"))
    assert change == Change("insert", 100, 946_684_805 * SECOND, 7, ("id", "note"), ("1", "a"))


def test_an_update_and_a_delete_know_the_row_as_it_is_and_its_key():
    assert told(TABLE, update(100, (1, "b")), delete(200, b"K", (1, None))) == [
        ("update", 100, ("1", "b")),
        ("delete", 200, ("1", None)),
    ]


def test_a_changed_key_is_a_delete_and_an_insert_with_positions_of_their_own():
    changed = [("delete", 100, ("1", None)), ("insert", 101, ("2", "b"))]
    assert told(TABLE, update(100, (2, "b"), b"K", (1, None))) == changed


def test_with_the_whole_old_row_only_a_changed_key_is_a_delete_and_an_insert():
    same, other = update(100, (1, "b"), b"O", (1, "a")), update(200, (2, "b"), b"O", (1, "b"))
    assert told(FULL, same, other, key=("id",)) == [
        ("update", 100, ("1", "b")),
        ("delete", 200, ("1", "b")),
        ("insert", 201, ("2", "b")),
    ]


def test_a_value_that_was_not_sent_is_the_one_of_the_old_row_or_known_to_be_missing():
    assert told(FULL, update(100, (1, UNSENT), b"O", (1, "long")), key=("id",)) == [("update", 100, ("1", "long"))]
    assert told(TABLE, update(100, (1, UNSENT))) == [("update", 100, ("1", UNSENT))]


def test_rows_of_one_record_of_the_log_have_each_a_position():
    rows = [insert(100, 1, "a"), insert(100, 2, "b"), insert(100, 3, "c"), insert(180, 4, "d")]
    assert [lsn for _, lsn, _ in told(TABLE, *rows)] == [100, 101, 102, 180]


def test_the_blanks_that_fill_a_char_are_no_part_of_its_value():
    table = relation(("id", INT8, True), ("code", CHAR, False))
    assert told(table, insert(100, 1, "ab   ")) == [("insert", 100, ("1", "ab"))]


def test_other_tables_pass_by():
    other = relation(("x", TEXT, True), oid=99)
    assert told(other, insert(50, "x", oid=99), TABLE, insert(100, 1, "a")) == [("insert", 100, ("1", "a"))]


def test_a_truncate_of_the_table_is_told_and_one_of_another_passes_by():
    assert told((100, b"T" + pack(">IBI", 1, 0, 99))) == []
    with pytest.raises(Truncated):
        told((100, b"T" + pack(">IBII", 2, 0, 99, OID)))


def test_transactions_are_taken_whole_between_two_positions():
    messages = [TABLE, *(each for lsn in (100, 200, 300) for each in (begin(lsn), insert(lsn - 50, lsn, "")))]
    assert [change.values[0] for change in Decoder(OID, after=200, upto=300).changes(messages)] == ["200"]


def test_a_column_that_was_added_is_known_from_then_on():
    wide = relation(("id", INT8, True), ("note", TEXT, False), ("more", TEXT, False))
    changes = decoded(begin(), TABLE, insert(100, 1, "a"), wide, insert(200, 2, "b", "c"))
    assert [change.names for change in changes] == [("id", "note"), ("id", "note", "more")]


@pytest.mark.parametrize(
    ("xid", "commit_lsn", "held"),
    [(99, 500, True), (100, 500, False), (104, 500, True), (103, 500, False), (110, 500, False), (99, 1000, False)],
)
def test_a_snapshot_holds_what_had_ended_when_it_was_taken(xid: int, commit_lsn: int, held: bool):
    assert Snapshot.of("100:110:100,103", below=1000).holds(xid, commit_lsn) is held


def test_a_snapshot_knows_a_transaction_by_its_last_32_bits():
    snapshot = Snapshot.of(f"{2**32 + 1}:{2**32 + 3}:{2**32 + 1}", below=1000)
    assert [snapshot.holds(xid, 500) for xid in (2**32 - 5, 1, 2, 3)] == [True, False, True, False]


def test_what_the_copy_holds_is_not_told_again():
    snapshot = Snapshot.of("7:9:7", below=1000)
    messages = [TABLE, begin(300, 7), insert(250, 1, "open then"), begin(400, 8), insert(350, 2, "copied")]
    assert [change.values[1] for change in Decoder(OID, snapshot=snapshot).changes(messages)] == ["open then"]
