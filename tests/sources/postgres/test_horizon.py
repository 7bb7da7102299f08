"""Transactions that are open while a reader passes: what they leave comes late and is never lost."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest
from pyspark.sql.types import StringType, StructField, StructType

from microbatch.errors import SourceUnavailable, StateChanged
from microbatch.sources.postgres.catalog import relation
from microbatch.sources.postgres.cursor import CursorInput
from tests.sources.postgres.conftest import Database, Suite, orders
from tests.sources.postgres.plainly import Plainly

pytestmark = pytest.mark.slow
INSERT = "INSERT INTO orders (order_id) VALUES (%s)"


@pytest.fixture
def by_time(suite: Suite) -> Plainly:
    orders(suite.database)
    return suite.reader(cursor="updated_at", key="order_id")


def ids(reader: Plainly) -> list[int]:
    return [row["order_id"] for row in reader.rows()]


def test_a_row_of_a_transaction_that_was_open_longer_than_any_other_comes_when_it_ends(by_time: Plainly, suite: Suite):
    suite.database.do("INSERT INTO orders (order_id) VALUES (1)")
    with suite.database.connect() as slow:
        slow.execute(INSERT, (2,))
        suite.database.do("INSERT INTO orders (order_id) VALUES (3)")
        by_time.run()
        assert ids(by_time) == [1]  # 3 is younger than the open transaction, and waits with it
        slow.commit()
    by_time.run()
    assert sorted(ids(by_time)) == [1, 2, 3]


def test_a_reader_that_has_written_nothing_yet_may_still_write(by_time: Plainly, suite: Suite):
    with suite.database.connect() as idle:
        idle.execute("SELECT now()")
        suite.database.do("INSERT INTO orders (order_id) VALUES (1)")
        assert by_time.run() == 0
        idle.execute(INSERT, (2,))
        idle.commit()
    by_time.run()
    assert sorted(ids(by_time)) == [1, 2]


def test_a_prepared_transaction_holds_what_may_be_younger_than_it(by_time: Plainly, suite: Suite):
    old = "INSERT INTO orders (order_id, updated_at) VALUES (1, now() - interval '2 hours')"
    with suite.database.connect(autocommit=True) as connection:
        connection.execute(old)
        connection.execute("BEGIN")
        connection.execute(INSERT, (2,))
        connection.execute("PREPARE TRANSACTION 'open'")
        connection.execute(INSERT, (3,))
        by_time.run()
        assert ids(by_time) == [1]
        connection.execute("COMMIT PREPARED 'open'")
    by_time.run()
    assert sorted(ids(by_time)) == [1, 2, 3]


def test_rows_younger_than_settle_s_wait(suite: Suite):
    orders(suite.database)
    reader = suite.reader(cursor="updated_at", settle_s=1000)
    suite.database.do("INSERT INTO orders (order_id, updated_at) VALUES (1, now() - interval '1001 s'), (2, now())")
    reader.run()
    assert ids(reader) == [1]


@pytest.mark.parametrize("kind", ["bigint NOT NULL DEFAULT nextval('numbers')", "timestamp NOT NULL DEFAULT now()"])
def test_any_other_cursor_goes_no_further_than_what_was_there_before_the_open_transaction(suite: Suite, kind: str):
    suite.database.do("CREATE SEQUENCE numbers", f"CREATE TABLE orders (order_id bigint PRIMARY KEY, cursor {kind})")
    suite.database.do("ALTER TABLE orders ADD status text, ADD amount numeric, ADD updated_at timestamptz")
    reader = suite.reader(cursor="cursor", key="order_id")
    suite.database.do("INSERT INTO orders (order_id) VALUES (1)")
    reader.input().fetch()  # a run that saw 1 before the slow one began
    with suite.database.connect() as slow:
        slow.execute(INSERT, (2,))
        suite.database.do("INSERT INTO orders (order_id) VALUES (3)")
        reader.run()
        assert ids(reader) == [1]
        slow.commit()
    reader.run()
    assert sorted(ids(reader)) == [1, 2, 3]


def test_a_transaction_that_only_reads_does_not_hold_a_sequence_back(suite: Suite):
    suite.database.do(
        "CREATE TABLE orders (order_id bigserial PRIMARY KEY, status text, amount numeric, updated_at timestamptz)"
    )
    reader = suite.reader(cursor="order_id")
    with suite.database.connect() as other:
        other.execute("SELECT count(*) FROM orders")
        suite.database.do("INSERT INTO orders DEFAULT VALUES")
        assert reader.run() == 1


def test_a_role_that_sees_no_other_session_loses_nothing_and_is_told(suite: Suite):
    orders(suite.database)
    role = f"plain_{suite.database.name}"
    suite.database.do(f"CREATE ROLE {role} LOGIN", f"GRANT SELECT ON orders TO {role}")
    reader = suite.reader(cursor="updated_at")
    reader.uri = suite.database.cluster.uri(suite.database.name, role)
    suite.database.do("INSERT INTO orders (order_id) VALUES (1)")
    reader.input().fetch()
    with suite.database.connect() as slow:
        slow.execute(INSERT, (2,))
        suite.database.do("INSERT INTO orders (order_id) VALUES (3)")
        reader.run()
        assert ids(reader) == [1]
        slow.commit()
    reader.run()
    assert sorted(ids(reader)) == [1, 2, 3]
    input_ = reader.input()
    assert isinstance(input_, CursorInput)
    assert "GRANT pg_read_all_stats" in " ".join(input_.notes())
    suite.database.do(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.parametrize("key", ["order_id", ()])
def test_many_rows_of_one_cursor_value_are_each_taken_once(suite: Suite, key: str):
    orders(suite.database)
    reader = suite.reader(cursor="updated_at", key=key, max_rows_per_batch=300)
    once = "INSERT INTO orders (order_id, updated_at) SELECT i, '2024-01-01' FROM generate_series({}) i"
    suite.database.do(once.format("1, 1000"), "INSERT INTO orders (order_id) VALUES (5000)")
    reader.run()
    assert sorted(ids(reader)) == [*range(1, 1001), 5000]
    sizes = [len(batch) for batch in reader.batches]
    assert sizes == ([300, 300, 300, 101] if key else [1000, 1])  # a value is split by its key, or not at all


def test_fetchers_read_a_batch_in_parts_that_are_together_the_whole(suite: Suite):
    orders(suite.database)
    many = "INSERT INTO orders (order_id, updated_at) SELECT i, '2024-01-01'::timestamptz + i % 700 * interval '1 s'"
    suite.database.do(f"{many} FROM generate_series(1, 50000) i", "ANALYZE orders")
    reader = suite.reader(cursor="updated_at", fetchers=4)
    with suite.reader(cursor="updated_at").input().server.session() as session:
        reading = reader.input()._reading(session)
        assert relation(session, reading.server, "orders").rows == 50000
    parts = reading.parts(reading.first(), reading.end(reading.first(), None))
    sizes = [sum(block.num_rows for block in reading.blocks(part, reader.schema)) for part in parts]
    assert sum(sizes) == 50000
    assert len(sizes) == 4 and max(sizes) < 2 * min(sizes)


def test_a_connection_that_is_cut_in_the_middle_leaves_the_batch_to_be_read_again(suite: Suite):
    orders(suite.database)
    long = "SELECT i, repeat('x', 100), '2024-01-01' FROM generate_series(1, 400000) i"
    suite.database.do(f"INSERT INTO orders (order_id, status, updated_at) {long}")
    reader = suite.reader(cursor="updated_at", fetchers=1)
    with reader.input().server.session() as session:
        reading = reader.input()._reading(session)
    (part,) = reading.parts(reading.first(), reading.end(reading.first(), None))
    blocks = reading.blocks(part, reader.schema)
    assert next(blocks).num_rows < 400000
    others = f"datname = '{suite.database.name}' AND pid <> pg_backend_pid()"
    suite.database.do(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
    with pytest.raises(SourceUnavailable):
        list(blocks)
    assert reader.run() == 400000


def test_an_offset_is_the_cursor_the_key_and_the_server(by_time: Plainly, suite: Suite):
    suite.database.do("INSERT INTO orders (order_id, updated_at) VALUES (1, '2024-01-01 10:00:00.000001+02')")
    by_time.run()
    offset = json.loads((by_time.checkpoint / "offsets" / "0").read_text().splitlines()[2])
    (identifier,) = suite.database.rows("SELECT system_identifier::text FROM pg_control_system()")[0]
    assert offset == {"cursor": "2024-01-01 08:00:00.000001+00", "key": None, "system_identifier": identifier}


def test_two_readers_do_not_hold_each_other_back(by_time: Plainly, suite: Suite, database: Database):
    with psycopg.connect(database.uri, application_name="microbatch") as other:
        other.execute("SELECT 1")
        suite.database.do("INSERT INTO orders (order_id) VALUES (1)")
        assert by_time.run() == 1


def test_a_cursor_of_uuids_that_grow_with_time_is_read_as_any_other(database: Database, tmp_path: Path):
    def key(number: int) -> str:
        return f"0192f0e0-0000-7000-8000-{number:012x}"  # as version 7 makes them

    database.do("CREATE TABLE orders (order_id uuid PRIMARY KEY)")
    shape = StructType([StructField("order_id", StringType())])
    reader = Plainly(tmp_path, database.uri, "order_id STRING", shape, table="orders", cursor="order_id")
    for last in (9, 10, 11):
        database.do(f"INSERT INTO orders VALUES ('{key(last)}')")
        assert reader.run() == 1
    assert [row["order_id"] for row in reader.rows()] == [key(9), key(10), key(11)]
    database.do(f"DELETE FROM orders WHERE order_id <> '{key(9)}'")
    with pytest.raises(StateChanged, match="restored from a backup"):
        reader.run()
