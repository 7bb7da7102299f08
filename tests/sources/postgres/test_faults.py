"""What stops a job before Spark starts: each fault with its exit code and what to do about it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from microbatch.errors import ConfigError, MicrobatchError, SourceUnavailable, StateChanged
from tests.sources.postgres.conftest import CURSOR, ORDER, Cluster, Database, Suite, orders
from tests.sources.postgres.plainly import Plainly, stopped

pytestmark = pytest.mark.slow
CHANGES = "mode: changes"
HERE = Path(__file__).resolve().parents[3]


@pytest.fixture
def read(suite: Suite) -> Plainly:
    """A job that was run by its cursor: orders 1 and 2 were read."""
    orders(suite.database)
    suite.database.do("INSERT INTO orders (order_id) VALUES (1), (2)")
    reader = suite.reader(cursor="updated_at", key="order_id")
    assert reader.run() == 2
    return reader


@pytest.fixture
def told(suite: Suite) -> Plainly:
    """A job that was run by its changes: orders 1 and 2 were read."""
    orders(suite.database)
    suite.database.do("INSERT INTO orders (order_id) VALUES (1), (2)")
    reader = suite.reader(mode="changes", slot=f"slot_{suite.database.name}")
    assert reader.run() == 2
    return reader


@pytest.fixture
def another(cluster: Cluster) -> Iterator[Cluster]:
    """A second server, for what would hurt other tests."""
    folder = Path(tempfile.mkdtemp(prefix="microbatch-postgres-"))
    made = Cluster(folder)
    yield made
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)


# What somebody has to edit: exit 2, at once.


@pytest.mark.parametrize(
    ("conf", "schema", "said"),
    [
        ("cursor: updated_att", ORDER, "has no column updated_att, which cursor names; did you mean updated_at?"),
        (CURSOR, f"{ORDER}, statuss STRING", "has no column statuss, which the schema names; did you mean status?"),
        (
            CURSOR,
            ORDER.replace("status STRING", "status BINARY"),
            "column status of public.orders is text, the schema says",
        ),
        ("cursor: status, key: amount", ORDER, "key amount may be null"),
        ("cursor: amount_f", ORDER, "cursor amount_f is double precision, which does not grow"),
        (f"{CHANGES}, publication: elsewhere", ORDER, 'ALTER PUBLICATION "elsewhere" ADD TABLE'),
        (f"{CHANGES}, key: nothing", ORDER, "has no column nothing, which key names"),
    ],
)
def test_a_mistake_of_the_conf_is_told_with_the_nearest_name(suite: Suite, conf: str, schema: str, said: str):
    orders(suite.database)
    suite.database.do("ALTER TABLE orders ADD amount_f float8", "CREATE TABLE others (id int PRIMARY KEY)")
    suite.database.do("CREATE PUBLICATION elsewhere FOR TABLE others")
    suite.write(conf, schema)
    ended = suite.run()
    assert ended.exit_code == 2, ended.output
    assert said in ended.output.replace("\n", " ")
    assert suite.database.rows("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == [
        (0,)
    ]


def test_an_unknown_table_is_told_with_the_nearest_name(suite: Suite):
    orders(suite.database)
    suite.write(table="public.order")
    ended = suite.run()
    assert ended.exit_code == 2 and "there is no table public.order; did you mean public.orders?" in ended.output


@pytest.mark.parametrize("mode", [CURSOR, CHANGES])
def test_a_wrong_password_is_not_tried_again(suite: Suite, mode: str):
    role = f"sworn_{suite.database.name}"
    suite.database.do(f"CREATE ROLE {role} LOGIN PASSWORD 'right'")
    suite.write(mode, uri=suite.database.cluster.uri(suite.database.name, role, "zebra"))
    ended = suite.run()
    assert ended.exit_code == 2 and "password authentication failed" in ended.output
    assert "zebra" not in ended.output
    suite.database.do(f"DROP ROLE {role}")


def test_a_role_that_may_not_read_is_told_so(suite: Suite):
    orders(suite.database)
    role = f"plain_{suite.database.name}"
    suite.database.do(f"CREATE ROLE {role} LOGIN")
    suite.write(uri=suite.database.cluster.uri(suite.database.name, role))
    ended = suite.run()
    assert ended.exit_code == 2 and "permission denied for table orders" in ended.output
    suite.write(CHANGES, uri=suite.database.cluster.uri(suite.database.name, role))
    ended = suite.run()
    assert ended.exit_code == 2 and 'CREATE PUBLICATION "microbatch_shop_orders" FOR TABLE' in ended.output
    suite.database.do(f"DROP ROLE {role}")


def test_a_table_without_a_key_is_refused_before_its_writers_would_be(suite: Suite):
    suite.database.do("CREATE TABLE orders (order_id bigint, status text, amount numeric, updated_at timestamptz)")
    suite.write(CHANGES)
    ended = suite.run()
    assert ended.exit_code == 2 and "REPLICA IDENTITY FULL" in ended.output
    suite.database.do("INSERT INTO orders VALUES (1)", "UPDATE orders SET status = 'still possible'")


@pytest.mark.parametrize(
    ("identity", "key", "said"),
    [
        ("USING INDEX by_status", "", "says status of the row it was, and not order_id of the key"),
        ("DEFAULT", ", key: status", "says order_id of the row it was, and not status of the key"),
    ],
)
def test_a_key_that_no_delete_would_say_is_refused(suite: Suite, identity: str, key: str, said: str):
    orders(suite.database)
    suite.database.do(
        "ALTER TABLE orders ALTER status SET NOT NULL",
        "CREATE UNIQUE INDEX by_status ON orders (status) INCLUDE (order_id)",
        f"ALTER TABLE orders REPLICA IDENTITY {identity}",
    )
    suite.write(CHANGES + key)
    ended = suite.run()
    assert ended.exit_code == 2 and said in ended.output and "REPLICA IDENTITY FULL" in ended.output
    suite.database.do("ALTER TABLE orders REPLICA IDENTITY FULL")
    assert suite.reader(mode="changes", slot=f"slot_{suite.database.name}", key="status").run() == 0


def test_a_table_that_others_inherit_from_is_refused_by_its_changes(suite: Suite):
    """Their rows are in a copy of it, their changes are told as their own."""
    orders(suite.database)
    suite.database.do("CREATE TABLE old_orders (PRIMARY KEY (order_id)) INHERITS (orders)")
    suite.write(CHANGES)
    ended = suite.run()
    assert ended.exit_code == 2, ended.output
    assert "public.old_orders inherits from public.orders" in ended.output.replace("\n", " ")


def test_a_cursor_column_that_was_dropped_is_an_edit_somebody_has_to_make(read: Plainly, suite: Suite):
    suite.database.do("ALTER TABLE orders RENAME updated_at TO changed_at")
    with pytest.raises(MicrobatchError) as caught:
        read.run()
    assert caught.value.exit_code == 2 and "has no column updated_at, which cursor names" in str(caught.value)


# What is not there now: exit 5.


@pytest.mark.parametrize("mode", [CURSOR, CHANGES])
def test_a_server_that_is_down_is_tried_later(suite: Suite, mode: str):
    suite.write(mode, uri="postgresql://me:zebra@127.0.0.1:1/shop")
    ended = suite.run()
    assert ended.exit_code == 5 and "source orders is not available" in ended.output
    assert "zebra" not in ended.output


def test_a_server_that_was_restarted_is_read_on(another: Cluster, tmp_path: Path):
    database = Database(another)
    suite = Suite(tmp_path, database)
    orders(database)
    by_time, changes = suite.reader(cursor="updated_at"), suite.reader(mode="changes")
    changes.checkpoint = tmp_path / "changes"
    for folder in ("offsets", "commits"):
        (changes.checkpoint / folder).mkdir(parents=True)
    database.do("INSERT INTO orders (order_id) VALUES (1)")
    assert (by_time.run(), changes.run()) == (1, 1)
    another.stop()
    with pytest.raises(SourceUnavailable):
        by_time.run()
    another.start()
    database.do("INSERT INTO orders (order_id) VALUES (2)")
    assert (by_time.run(), changes.run()) == (1, 1)


def test_a_standby_is_refused_by_its_cursor_and_tried_later_by_its_changes(another: Cluster, tmp_path: Path):
    """Who writes, only the primary knows; and a slot that cannot be asked for a moment is no slot that was lost."""
    database = Database(another)
    suite = Suite(tmp_path, database)
    orders(database)
    database.do("INSERT INTO orders (order_id) VALUES (1)")
    by_time = suite.reader(cursor="updated_at", key="order_id")
    changes = Suite(tmp_path / "changes", database).reader(mode="changes")
    assert (by_time.run(), changes.run()) == (1, 1)
    another.stop()
    (another.folder / "standby.signal").touch()
    another.start()
    with pytest.raises(ConfigError, match="a standby, which does not show who writes; connect to the primary"):
        by_time.run()
    with pytest.raises(SourceUnavailable, match="a standby"):
        changes.run()
    with pytest.raises(SourceUnavailable, match="a standby"):
        changes.input().lag_bytes()


def test_a_view_that_was_never_filled_is_tried_later(suite: Suite):
    orders(suite.database)
    suite.database.do("ALTER TABLE orders RENAME TO kept", "CREATE MATERIALIZED VIEW orders AS TABLE kept WITH NO DATA")
    with pytest.raises(SourceUnavailable, match="has not been populated"):
        suite.reader(cursor="updated_at", key="order_id").run()


# What is not as it was: exit 1, and the checkpoint stays.


@pytest.mark.parametrize(
    ("column", "value"), [("updated_at", "NULL"), ("updated_at", "'infinity'"), ("amount", "'NaN'"), ("amount", "NULL")]
)
def test_a_row_that_a_cursor_would_never_see_stops_the_job(suite: Suite, column: str, value: str):
    orders(suite.database)
    suite.database.do(
        "ALTER TABLE orders ALTER updated_at DROP NOT NULL",
        f"INSERT INTO orders (order_id, {column}) VALUES (1, {value})",
    )
    said = stopped(suite.reader(cursor=column))
    assert (
        f"rows whose {column} is {value.lower().strip(chr(39)) if value != chr(39) + 'NaN' + chr(39) else 'NaN'}"
        in said
    )


def test_a_view_with_a_null_key_stops_the_job(suite: Suite):
    suite.database.do(
        "CREATE TABLE anything (order_id bigint, status text, amount numeric(10,2), updated_at timestamptz)",
        "CREATE VIEW orders AS SELECT * FROM anything",
        "INSERT INTO anything VALUES (1, 'new', 1, now())",
    )
    reader = suite.reader(cursor="updated_at", key="order_id")
    assert reader.run() == 1
    suite.database.do("INSERT INTO anything VALUES (NULL, 'new', 1, now())")
    assert "rows whose order_id is null" in stopped(reader)


def test_a_table_that_was_set_back_stops_the_job(read: Plainly, suite: Suite):
    suite.database.do("UPDATE orders SET updated_at = updated_at - interval '1 day'")
    assert "restored from a backup" in stopped(read)


@pytest.mark.parametrize("kind", ["read", "told"])
def test_another_server_stops_the_job(request: pytest.FixtureRequest, kind: str):
    reader: Plainly = request.getfixturevalue(kind)
    newest = sorted((reader.checkpoint / "offsets").iterdir())[-1]
    lines = newest.read_text().splitlines()
    newest.write_text("\n".join([*lines[:2], json.dumps({**json.loads(lines[2]), "system_identifier": "1"})]))
    assert "system_identifier was 1, is" in stopped(reader)


def test_a_slot_that_is_gone_stops_the_job(told: Plainly, suite: Suite):
    suite.database.do(f"SELECT pg_drop_replication_slot('slot_{suite.database.name}')")
    assert "is gone" in stopped(told)


def test_a_slot_that_was_made_anew_stops_the_job(told: Plainly, suite: Suite):
    name = f"slot_{suite.database.name}"
    suite.database.do(
        f"SELECT pg_drop_replication_slot('{name}')",
        "INSERT INTO orders (order_id) VALUES (3)",
        f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')",
    )
    assert "made anew, or moved on by somebody else" in stopped(told)


def test_a_slot_that_was_left_too_far_behind_stops_the_job(another: Cluster, tmp_path: Path):
    database = Database(another)
    suite = Suite(tmp_path, database)
    orders(database)
    reader = suite.reader(mode="changes")
    database.do("INSERT INTO orders (order_id) VALUES (1)")
    reader.run()
    database.do("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()")
    lost, ends = False, time.monotonic() + 30
    while not lost and time.monotonic() < ends:
        database.do(
            "CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 30000)", "DROP TABLE filler"
        )
        database.do("SELECT pg_switch_wal()", "CHECKPOINT")
        lost = database.rows("SELECT wal_status FROM pg_replication_slots") == [("lost",)]
    assert lost
    assert "max_slot_wal_keep_size" in stopped(reader)


@pytest.mark.parametrize("table", ["orders (order_id)", "others (id)"])
def test_a_server_that_was_set_back_stops_the_job(another: Cluster, tmp_path: Path, table: str):
    """What is written to it now has positions that were read before: of other rows."""
    database, backup = Database(another), tmp_path / "backup"
    suite = Suite(tmp_path, database)
    orders(database)
    database.do("CREATE TABLE others (id int)", "INSERT INTO orders (order_id) VALUES (1)")
    reader = suite.reader(mode="changes")
    assert reader.run() == 1
    another.stop()
    subprocess.run(["cp", "-a", another.folder, backup], check=True)
    another.start()
    database.do(f"INSERT INTO {table} SELECT generate_series(1001, 6000)")
    assert reader.run() == (5000 if "orders" in table else 0)
    another.stop()
    shutil.rmtree(another.folder)
    subprocess.run(["cp", "-a", backup, another.folder], check=True)
    another.start()
    database.do("INSERT INTO orders (order_id) VALUES (2)")
    at = "SELECT confirmed_flush_lsn FROM pg_replication_slots"
    before = database.rows(at)
    assert "was set back to an older state" in stopped(reader)
    assert database.rows(at) == before


def test_a_table_that_was_made_anew_stops_the_job(told: Plainly, suite: Suite):
    suite.database.do("DROP TABLE orders")
    orders(suite.database)
    assert "was made anew" in stopped(told)


@pytest.fixture
def parted(suite: Suite) -> Plainly:
    """A job that was run by its changes over a table of two partitions, and one that came after its first copy."""
    suite.database.do(
        "CREATE TABLE orders (order_id bigint PRIMARY KEY, status text, amount numeric(10,2), updated_at timestamptz) "
        "PARTITION BY RANGE (order_id)",
        "CREATE TABLE orders_0 PARTITION OF orders FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (100) TO (200)",
        "INSERT INTO orders (order_id) VALUES (1), (101)",
    )
    reader = suite.reader(mode="changes", slot=f"slot_{suite.database.name}")
    assert reader.run() == 2
    suite.database.do(
        "CREATE TABLE orders_2 PARTITION OF orders FOR VALUES FROM (200) TO (300)",
        "INSERT INTO orders (order_id) VALUES (201)",
    )
    assert reader.run() == 1
    return reader


@pytest.mark.parametrize(
    "statement", ["DROP TABLE orders_0", "ALTER TABLE orders DETACH PARTITION orders_1", "DROP TABLE orders_2"]
)
def test_a_partition_that_is_gone_stops_the_job(parted: Plainly, suite: Suite, statement: str):
    suite.database.do(statement)
    assert "lost a partition since it was read" in stopped(parted)


def test_what_nobody_is_told_of_a_partition_is_said_before_a_run(parted: Plainly):
    assert any("TRUNCATE of one partition" in note and "ATTACH" in note for note in parted.input().notes())


def test_a_truncate_stops_the_job(told: Plainly, suite: Suite):
    suite.database.do("TRUNCATE orders")
    with pytest.raises(StateChanged, match="was truncated"):
        told.run()


def test_a_column_that_was_dropped_between_two_changes_is_an_edit_somebody_has_to_make(told: Plainly, suite: Suite):
    suite.database.do("INSERT INTO orders (order_id) VALUES (3)", "ALTER TABLE orders DROP status")
    suite.database.do("INSERT INTO orders (order_id) VALUES (4)")
    with pytest.raises(MicrobatchError) as caught:
        told.run()
    assert caught.value.exit_code == 2


def test_a_lost_part_of_the_first_copy_stops_the_job(suite: Suite):
    orders(suite.database)
    suite.database.do("INSERT INTO orders (order_id) VALUES (1)")
    reader = suite.reader(mode="changes", slot=f"slot_{suite.database.name}")
    reader.run(crash=True)
    (reader.checkpoint / "microbatch/copy/000000.parquet").unlink()
    newest = reader.checkpoint / "offsets/0"
    newest.write_text(newest.read_text().replace('"copied": 1', '"copied": 0'))
    assert "a part of the first copy" in stopped(reader)


# What costs nothing.


@pytest.mark.parametrize("mode", [CURSOR, CHANGES])
def test_a_run_with_nothing_to_do_starts_no_jvm(suite: Suite, mode: str):
    orders(suite.database)
    suite.write(mode)
    asked = (
        "import sys, time; from microbatch.cli import main; sys.argv = ['microbatch', 'run', 'shop', '--suite', sys.argv[1]]\n"
        "began = time.monotonic()\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code or 0, 'pyspark' in sys.modules, time.monotonic() - began)"
    )
    words = [sys.executable, "-c", asked, str(suite.root)]
    ended = subprocess.run(words, capture_output=True, text=True, env={"PYTHONPATH": str(HERE)}, timeout=60)
    code, spark, seconds = ended.stdout.splitlines()[-1].split()
    assert (code, spark) == ("0", "False"), ended.stderr
    print(seconds, "s")


def test_log_of_other_tables_is_given_back_by_an_idle_run(told: Plainly, suite: Suite):
    suite.database.do("CREATE TABLE others AS SELECT repeat('x', 1000) FROM generate_series(1, 2000)")
    behind = "pg_current_wal_lsn() - confirmed_flush_lsn"
    lag = f"SELECT {behind} < 100000 FROM pg_replication_slots WHERE database = current_database()"
    assert suite.database.rows(lag) == [(False,)]
    assert told.run() == 0
    assert suite.database.rows(lag) == [(True,)]
    suite.database.do("INSERT INTO orders (order_id) VALUES (3)")
    assert told.run() == 1
