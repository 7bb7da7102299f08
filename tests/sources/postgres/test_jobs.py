"""Jobs that read PostgreSQL, with Spark and Delta: targets, crashes, letters, commands and secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from microbatch.cli import group
from tests.sources.postgres.conftest import CHANGES, CURSOR, Shop, Suite, orders

pytestmark = pytest.mark.slow
PLAIN = "order_id BIGINT, status STRING, amount DECIMAL(10,2)"
HISTORY = (
    """History("bronze.orders", keys=["order_id"], newest_by="_lsn", delete_when="_op = 'delete'", track=["status"])"""
)
HERE = Path(__file__).resolve().parents[3]
MARK = "zebra"
PASSWORD = f"p@{MARK}:s/e%7 q"


def call(shop: Shop, *words: str) -> str:
    """What a command says; it must end well."""
    storage = "".join(f"  {name}: {path}\n" for name, path in shop.bench.storage.items())
    file = shop.bench.root / "conf/base/environment.yml"
    if "storage:" not in file.read_text():
        file.write_text(f"storage:\n{storage}{file.read_text()}")
    ended = CliRunner().invoke(group, [*words, "--suite", str(shop.bench.root)])
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_a_history_keeps_each_version_and_a_delete_closes_the_last(shop: Shop):
    shop.table()
    shop.database.do("INSERT INTO orders (order_id, status) VALUES (1, 'new'), (2, 'new')")
    bench = shop.job("mode: changes", PLAIN, HISTORY)
    bench.run("shop")
    shop.database.do("UPDATE orders SET status = 'paid' WHERE order_id = 1", "DELETE FROM orders WHERE order_id = 1")
    bench.run("shop")
    held = bench.read("bronze.orders").orderBy("order_id", "valid_from").collect()
    assert [(row.order_id, row.status, row.is_current) for row in held] == [
        (1, "new", False),
        (1, "paid", False),
        (2, "new", True),
    ]
    assert held[0].valid_to == held[1].valid_from < held[1].valid_to


@pytest.mark.parametrize("before", ["target", "commit"])
@pytest.mark.parametrize("mode", [CURSOR, "mode: changes"])
def test_a_crash_neither_loses_nor_doubles_a_row(shop: Shop, mode: str, before: str):
    shop.table()
    shop.database.do("INSERT INTO orders (order_id, status) VALUES (1, 'new'), (2, 'new')")
    bench = shop.job(mode, PLAIN, 'Append("bronze.orders")')
    bench.crash("shop", before=before)
    shop.database.do("INSERT INTO orders (order_id, status) VALUES (3, 'new')")
    bench.run("shop")
    shop.database.do("INSERT INTO orders (order_id, status) VALUES (4, 'new')")
    bench.crash("shop", before=before)
    bench.run("shop")
    assert shop.rows("order_id") == [(1,), (2,), (3,), (4,)]


def test_a_value_that_does_not_fit_is_a_letter_and_comes_in_when_it_does(shop: Shop):
    shop.table()
    shop.database.do("INSERT INTO orders (order_id, status, amount) VALUES (1, 'new', 12345.67), (2, 'new', 1)")
    narrow = PLAIN.replace("10,2", "4,2")
    bench = shop.job("mode: changes", narrow, 'Append("bronze.orders")')
    bench.run("shop")
    (letter,) = bench.quarantine("shop").collect()
    assert (letter.kind, letter.reasons[0].message) == ("parse", "amount does not fit decimal(4,2)")
    assert json.loads(letter.payload).items() >= {"order_id": "1", "amount": "12345.67", "_op": "insert"}.items()
    assert shop.rows() == [(2, "new", Decimal("1.00"))]
    call(shop, "quarantine", "replay", "shop")
    assert shop.rows("order_id") == [(2,)]  # it still does not fit
    shop.job("mode: changes", narrow.replace("4,2", "4,2").replace("DECIMAL(4,2)", "STRING"), 'Append("bronze.others")')
    assert bench.quarantine("shop").collect()[0].status == "open"


def test_a_connection_that_is_cut_is_made_again(shop: Shop):
    shop.table()
    shop.database.do(
        "INSERT INTO orders (order_id, status) SELECT i, repeat('x', 300) FROM generate_series(1, 60000) i"
    )
    bench = shop.job(f"{CURSOR}, fetchers: 1", PLAIN, 'Append("bronze.orders")')
    conf = bench.root / "conf/base/shop.yml"
    conf.write_text(conf.read_text().replace("attempts: 0", "attempts: 3, first_wait_s: 0"))
    cut: list[int] = []

    def cutting() -> None:
        these = (
            f"datname = '{shop.database.name}' AND pid <> pg_backend_pid() AND query LIKE 'COPY (SELECT \"order_id\"%'"
        )
        ends = time.monotonic() + 60
        with shop.database.connect(autocommit=True) as connection:
            while not cut and time.monotonic() < ends:
                found = connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {these}")
                cut.extend(len(row) for row in found.fetchall())

    thread = threading.Thread(target=cutting)
    thread.start()
    bench.run("shop")
    thread.join()
    assert cut
    assert bench.read("bronze.orders").count() == 60000


def test_an_error_of_the_source_stops_the_flow_as_itself(shop: Shop):
    shop.table()
    shop.database.do("INSERT INTO orders (order_id) VALUES (1)")
    bench = shop.job("mode: changes", PLAIN, CHANGES)
    bench.run("shop")
    shop.database.do("INSERT INTO orders (order_id) VALUES (2)", "TRUNCATE orders")
    (error,) = bench.report("shop").errors
    assert (type(error).__name__, error.exit_code) == ("StateChanged", 1)
    assert "public.orders was truncated" in str(error) and "--accept checkpoint" in str(error)
    assert "\n" not in str(error)
    call(shop, "run", "shop", "--flow", "ingest", "--accept", "checkpoint")
    assert call(shop, "run", "shop")


def test_plan_says_what_waits_and_preview_shows_it(shop: Shop):
    shop.table()
    shop.database.do("INSERT INTO orders (order_id, status) VALUES (1, 'new')")
    shop.job("mode: changes", PLAIN, CHANGES)
    planned = call(shop, "plan", "shop")
    assert "PostgreSQL table public.orders of connection shop, its changes" in planned
    assert "1 change" in planned and "REPLICA IDENTITY FULL" in planned
    assert (
        shop.database.rows("SELECT count(*) FROM pg_replication_slots") == [(0,)] or "makes replication slot" in planned
    )
    assert "new" in call(shop, "preview", "shop", "--flow", "ingest")
    call(shop, "run", "shop")
    shop.database.do("UPDATE orders SET status = 'paid'")
    assert "paid" in call(shop, "preview", "shop", "--flow", "ingest")
    call(shop, "audit", "shop")


@pytest.mark.parametrize("mode", [CURSOR, "mode: changes"])
def test_a_password_is_nowhere(suite: Suite, mode: str, tmp_path: Path):
    orders(suite.database)
    role = f"sworn_{suite.database.name}"
    suite.database.do(
        f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{PASSWORD}'", "INSERT INTO orders (order_id) VALUES (1)"
    )
    suite.write(mode, uri="${env:SHOP_URI}")
    events = tmp_path / "events"
    events.mkdir()
    spark = suite.root / "conf/local/spark.conf"
    spark.parent.mkdir(parents=True)
    spark.write_text(f"spark.eventLog.enabled true\nspark.eventLog.dir file://{events}\n")
    uri = suite.database.cluster.uri(suite.database.name, role, PASSWORD)
    environment = {**os.environ, "SHOP_URI": uri, "PYTHONPATH": str(HERE), "MICROBATCH_JARS": str(HERE / ".jars")}
    words = [sys.executable, "-m", "microbatch", "run", "shop", "--debug", "--suite", str(suite.root)]
    ended = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=150)
    assert ended.returncode == 0, ended.stderr
    assert list(events.rglob("events_*"))
    suite.database.do(f"ALTER ROLE {role} RENAME TO gone_{suite.database.name}")
    refused = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=150)
    assert refused.returncode == 2, refused.stderr
    told = ended.stdout + ended.stderr + refused.stdout + refused.stderr
    left = [file for file in tmp_path.rglob("*") if file.is_file() and MARK.encode() in file.read_bytes()]
    assert MARK not in told and left == []
    assert quote(PASSWORD, safe="") in uri
    suite.database.do(f"DROP OWNED BY gone_{suite.database.name} CASCADE", f"DROP ROLE gone_{suite.database.name}")
