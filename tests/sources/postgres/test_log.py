"""What a slot tells, read without Spark: copies, batches, partitions, long values."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from pathlib import Path

import pytest
from pyspark.sql.types import IntegerType, StringType, StructField, StructType

from microbatch.errors import StateChanged
from microbatch.sources.postgres import Slot
from microbatch.sources.postgres.catalog import relation
from microbatch.sources.postgres.values import UNPARSED
from tests.sources.postgres.conftest import OF_CHANGES, Cluster, Database, Suite, orders
from tests.sources.postgres.plainly import Plainly, server

pytestmark = pytest.mark.slow
LONG = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 500) WHERE {0} = {0})"  # does not compress


def notes(database: Database, folder: Path, **conf: object) -> Plainly:
    shape = StructType([StructField("id", IntegerType()), StructField("note", StringType()), *OF_CHANGES])
    slot = f"slot_{database.name}"
    return Plainly(folder, database.uri, "id INT, note STRING", shape, table="notes", mode="changes", slot=slot, **conf)


def held(reader: Plainly) -> dict[int, str | None]:
    table: dict[int, str | None] = {}
    for row in reader.rows():
        if row["_op"] == "delete":
            table.pop(row["id"])
        else:
            table[row["id"]] = row["note"]
    return table


@pytest.mark.parametrize("identity", ["FULL", "DEFAULT"])
def test_a_long_value_that_an_update_left_as_it_was_is_the_one_the_row_has(
    database: Database, tmp_path: Path, identity: str
):
    database.do("CREATE TABLE notes (id int PRIMARY KEY, other int, note text)")
    database.do(f"ALTER TABLE notes REPLICA IDENTITY {identity}")
    database.do(f"INSERT INTO notes SELECT i, 0, {LONG.format('i')} FROM generate_series(1, 5) i")
    reader = notes(database, tmp_path)
    reader.run()
    database.do(
        "UPDATE notes SET other = 1",  # twice: the second is the newest, and the first has what the second has
        "UPDATE notes SET other = 2",
        "UPDATE notes SET note = 'short' WHERE id = 2",
        f"UPDATE notes SET note = {LONG.format('id')} WHERE id = 3",
        "UPDATE notes SET other = 3 WHERE id = 3",
        "DELETE FROM notes WHERE id = 4",
        "UPDATE notes SET id = 50 WHERE id = 5",
    )
    assert reader.run() == 16
    assert held(reader) == dict(database.rows("SELECT id, note FROM notes"))
    unknown = [(row["id"], row["_op"]) for row in reader.rows() if row["_problem"]]
    if identity == "FULL":
        assert unknown == []
    else:  # what 2, 3, 4 and 5 had before they were changed again, nobody can know any more: said, not guessed
        assert sorted(unknown) == sorted([(n, "update") for n in (2, 3, 4, 5) for _ in range(2)])


def test_a_long_value_is_found_by_an_address(database: Database, tmp_path: Path):
    database.do("CREATE TABLE notes (id inet PRIMARY KEY, other int, note text)")
    database.do(f"INSERT INTO notes SELECT '10.0.0.1'::inet + i, 0, {LONG.format('i')} FROM generate_series(1, 3) i")
    reader = notes(database, tmp_path)
    of(reader, "id STRING, note STRING")
    reader.run()
    database.do("UPDATE notes SET other = 1")
    assert reader.run() == 3
    assert held(reader) == dict(database.rows("SELECT host(id), note FROM notes"))


def test_a_long_value_is_found_where_the_row_was_changed_behind_a_savepoint(database: Database, tmp_path: Path):
    database.do("CREATE TABLE notes (id int PRIMARY KEY, other int, note text)")
    database.do(f"INSERT INTO notes SELECT i, 0, {LONG.format('i')} FROM generate_series(1, 3) i")
    reader = notes(database, tmp_path)
    reader.run()
    with database.connect() as connection:
        connection.execute("UPDATE notes SET other = 1 WHERE id = 1")
        connection.execute("SAVEPOINT a")
        connection.execute("UPDATE notes SET other = 1 WHERE id IN (2, 3)")
        connection.commit()
    with reader.input().server.session() as session:
        reading = reader.input()._reading(session)
    database.do("UPDATE notes SET note = 'short' WHERE id = 3")  # after the batch was planned, before it is read
    start = reading.end(reading.first(), None)
    (part,) = reading.parts(start, reading.end(start, None))
    rows = {row["id"]: row for block in reading.blocks(part, reader.schema) for row in block.to_pylist()}
    stored = dict(database.rows("SELECT id, note FROM notes"))
    assert {n: rows[n]["note"] for n in (1, 2)} == {n: stored[n] for n in (1, 2)}
    assert rows[3]["note"] is None and "REPLICA IDENTITY FULL" in rows[3]["_problem"]
    reader.run()
    assert held(reader)[3] == "short"


def test_a_partitioned_table_is_read_as_one(database: Database, tmp_path: Path):
    database.do(
        "CREATE TABLE notes (id int PRIMARY KEY, note text) PARTITION BY RANGE (id)",
        "CREATE TABLE notes_1 PARTITION OF notes FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE notes_2 PARTITION OF notes FOR VALUES FROM (100) TO (200)",
        "INSERT INTO notes VALUES (1, 'a'), (101, 'b')",
    )
    reader = notes(database, tmp_path)
    reader.run()
    database.do("INSERT INTO notes VALUES (2, 'c'), (102, 'd')", "UPDATE notes SET id = 150 WHERE id = 1")
    reader.run()
    assert held(reader) == dict(database.rows("SELECT id, note FROM notes"))


def test_a_server_of_an_older_version_is_read_too(tmp_path: Path):
    """Of before 18: it has no max of bytes, and tells nothing at all of a time without the publication."""
    folder = Path(tempfile.mkdtemp(prefix="microbatch-postgres-"))
    older = Cluster(folder, version=16)
    try:
        suite = Suite(tmp_path, Database(older))
        orders(suite.database)
        suite.database.do("INSERT INTO orders (order_id) VALUES (1)")
        by_time = suite.reader(cursor="updated_at", key="order_id")
        changes = Suite(tmp_path / "changes", suite.database).reader(mode="changes")
        assert (by_time.run(), changes.run()) == (1, 1)
        suite.database.do("INSERT INTO orders (order_id) VALUES (2)")
        assert (by_time.run(), changes.run(), changes.run()) == (1, 1, 0)
        suite.database.do(
            "DROP PUBLICATION microbatch_test",
            "INSERT INTO orders (order_id) VALUES (3)",
            "CREATE PUBLICATION microbatch_test FOR TABLE orders",
        )
        assert Suite(tmp_path / "anew", suite.database).reader(mode="changes").run() == 3
    finally:
        older.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_batches_are_whole_transactions_of_about_the_size_that_was_asked_for(suite: Suite):
    orders(suite.database)
    reader = suite.reader(mode="changes", slot=f"slot_{suite.database.name}", max_rows_per_batch=10)
    suite.database.do("INSERT INTO orders (order_id) SELECT i FROM generate_series(1, 25) i")
    reader.run()
    for n in range(6):
        first = 100 + 4 * n
        suite.database.do(f"INSERT INTO orders (order_id) SELECT i FROM generate_series({first}, {first + 3}) i")
    suite.database.do("INSERT INTO orders (order_id) SELECT i FROM generate_series(1000, 1049) i")
    reader.run()
    assert [len(batch) for batch in reader.batches] == [10, 10, 5, 12, 12, 50]


def of(reader: Plainly, ddl: str) -> None:
    """Edit the schema of a reader; its columns are of text."""
    reader.ddl = ddl
    names = [each.split()[0] for each in ddl.split(", ")]
    reader.schema = StructType([*[StructField(name, StringType()) for name in names], *OF_CHANGES, *UNPARSED])


@pytest.mark.parametrize("edited", ["city STRING, id STRING", "city STRING", "name STRING, id STRING, city STRING"])
def test_a_copy_is_read_by_the_names_of_its_columns(database: Database, tmp_path: Path, edited: str):
    """It is made before the rest of a job is looked at, and somebody may edit the schema then."""
    database.do(
        "CREATE TABLE notes (id int PRIMARY KEY, name text, city text)", "INSERT INTO notes VALUES (1, 'n', 'c')"
    )
    reader = notes(database, tmp_path)
    of(reader, "id STRING, city STRING")
    reader.input().fetch()
    of(reader, edited)
    assert reader.run() == 1
    (row,) = reader.rows()
    stored = {"id": "1", "name": "n", "city": "c"}
    assert {name: row[name] for name in stored if name in row} == {n: stored[n] for n in stored if n in edited}


def test_a_column_that_half_a_copy_lacks_stops_the_job(database: Database, tmp_path: Path):
    database.do("CREATE TABLE notes (id int PRIMARY KEY, name text)", "INSERT INTO notes VALUES (1, 'n')")
    reader = notes(database, tmp_path)
    of(reader, "id STRING")
    assert reader.run(crash=True) == 1
    (tmp_path / "offsets/0").write_text((tmp_path / "offsets/0").read_text().replace('"copied": 1', '"copied": 0'))
    of(reader, "name STRING, id STRING")
    with pytest.raises(StateChanged, match="the first copy has no column name"):
        reader.run()
    of(reader, "id STRING")
    reader.input().pending()


def test_the_same_changes_come_when_a_batch_is_read_again(suite: Suite):
    orders(suite.database)
    reader = suite.reader(mode="changes", slot=f"slot_{suite.database.name}")
    suite.database.do("INSERT INTO orders (order_id) VALUES (1)")
    assert reader.run(crash=True) == 1
    suite.database.do("INSERT INTO orders (order_id) VALUES (2)", "DELETE FROM orders WHERE order_id = 1")
    reader.run()
    assert reader.run(crash=True) == 0
    suite.database.do("INSERT INTO orders (order_id) VALUES (3)")
    assert reader.run(crash=True) == 1
    suite.database.do("INSERT INTO orders (order_id) VALUES (4)", "DROP TABLE IF EXISTS nothing")
    reader.run()
    told = [(row["_op"], row["order_id"]) for row in reader.rows()]
    assert told == [("insert", 1), ("insert", 2), ("delete", 1), ("insert", 3), ("insert", 4)]


def test_the_slot_moves_on_only_behind_what_is_committed(suite: Suite):
    orders(suite.database)
    slot = f"slot_{suite.database.name}"
    reader = suite.reader(mode="changes", slot=slot)
    suite.database.do("INSERT INTO orders (order_id) VALUES (1)")
    reader.run()
    at = f"SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{slot}'"
    before = suite.database.rows(at)
    suite.database.do("INSERT INTO orders (order_id) VALUES (2)")
    reader.run(crash=True)
    reader.input().pending()
    assert suite.database.rows(at) == before
    reader.run()
    assert suite.database.rows(at) > before


def test_two_flows_that_begin_side_by_side_share_the_publication_one_of_them_makes(suite: Suite):
    orders(suite.database)
    slot, ended = Slot(server(suite.database.uri), "unused", "shared"), []

    def begin() -> None:
        with slot.server.session() as session:
            slot.ensure_publication(session, relation(session, slot.server, "orders"))
        ended.append("well")

    with suite.database.connect() as first:
        first.execute("CREATE PUBLICATION shared FOR TABLE orders")
        second = threading.Thread(target=begin)
        second.start()
        until = time.monotonic() + 30
        while not suite.database.rows("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
            assert time.monotonic() < until, "the second does not wait for the first"
            time.sleep(0.01)
    second.join(30)
    assert ended == ["well"]


def test_a_job_that_starts_anew_ends_as_the_table_is(suite: Suite):
    orders(suite.database)
    slot = f"slot_{suite.database.name}"
    suite.database.do("INSERT INTO orders (order_id, status) VALUES (1, 'a'), (2, 'a')")
    first = suite.reader(mode="changes", slot=slot)
    first.run()
    suite.database.do("UPDATE orders SET status = 'b' WHERE order_id = 1")
    first.run()
    suite.database.do("UPDATE orders SET status = 'c' WHERE order_id = 1", "DELETE FROM orders WHERE order_id = 2")
    second = Plainly(suite.root / "anew", first.uri, first.ddl, first.schema, table="orders", mode="changes", slot=slot)
    second.schema = first.schema
    second.run()
    suite.database.do("UPDATE orders SET status = 'd' WHERE order_id = 1")
    second.run()
    assert [(row["_op"], row["order_id"], row["status"]) for row in second.rows()] == [
        ("insert", 1, "c"),
        ("update", 1, "d"),
    ]
    assert min(row["_lsn"] for row in second.rows()) > max(row["_lsn"] for row in first.rows())


def test_the_copy_waits_for_whoever_has_written_before_it(database: Database, tmp_path: Path):
    """Else that change, told later, would have an older position than the copy's row, and an upsert would leave it out."""
    database.do("CREATE TABLE notes (id int PRIMARY KEY, note text)", "INSERT INTO notes VALUES (1, 'old')")
    reader = notes(database, tmp_path)
    input_ = reader.input()
    with input_.server.session() as session:  # there already: the making of a slot would wait by itself
        input_.slot.ensure_publication(session, input_._relation(session))
        input_.slot.ensure(session)
    with database.connect() as writer:
        writer.execute("UPDATE notes SET note = 'new' WHERE id = 1")
        ends = threading.Timer(1, writer.commit)
        ends.start()
        reader.run()
        ends.join()
    database.do("INSERT INTO notes VALUES (2, 'more')")
    reader.run()
    by_position = {row["id"]: row["note"] for row in sorted(reader.rows(), key=lambda row: row["_lsn"])}
    assert by_position == dict(database.rows("SELECT id, note FROM notes"))


@pytest.mark.parametrize("max_rows", [None, 10])
def test_changes_behind_a_hundred_thousand_of_another_table_are_told(suite: Suite, max_rows: int | None):
    orders(suite.database)
    many = "INSERT INTO others SELECT generate_series({}, {})"
    suite.database.do("CREATE TABLE others (id int PRIMARY KEY)", "CREATE PUBLICATION two FOR TABLE orders, others")
    slot = f"slot_{suite.database.name}"
    reader = suite.reader(mode="changes", slot=slot, publication="two", max_rows_per_batch=max_rows)
    reader.run()
    suite.database.do(
        "INSERT INTO orders (order_id) VALUES (1)",
        many.format(1, 100_000),
        "INSERT INTO orders (order_id) VALUES (2)",
    )
    assert reader.run() == 2
    suite.database.do(many.format(100_001, 200_000), many.format(200_001, 300_000))
    suite.database.do("INSERT INTO orders (order_id) VALUES (3)")
    assert reader.input().pending() > 0
    assert reader.run() == 1
    assert (reader.input().pending(), reader.run()) == (0, 0)
