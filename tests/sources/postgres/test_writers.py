"""Three writers, transactions of all lengths, and the job again and again: in the end each table is the database, to the cell."""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.sources.postgres.conftest import Shop
from tests.sources.postgres.writers import TABLES, Writers

pytestmark = pytest.mark.slow
SECONDS = float(os.environ.get("SOAK_S", "20"))  # SOAK_S=60 for a longer look
JOB = '''
"""Two tables that others write."""

from microbatch import Append, Flow, Job, Source, Upsert

ROW = "id INT, value DECIMAL(10,2), note STRING"
BY_TIME = Source("by_time", schema=ROW + ", updated_at TIMESTAMP")
BY_NUMBER = Source("by_number", schema=ROW + ", number BIGINT")
BY_CHANGES = Source("by_changes", schema=ROW)

JOB = Job(
    Flow("by_time", reads=BY_TIME, writes=Upsert("bronze.by_time", keys=["id"], newest_by="updated_at")),
    Flow("by_number", reads=BY_NUMBER, writes=Upsert("bronze.by_number", keys=["id"], newest_by="number")),
    Flow("by_changes", reads=BY_CHANGES,
         writes=Upsert("bronze.by_changes", keys=["id"], newest_by="_lsn", delete_when="_op = 'delete'")),
    Flow("log", reads=BY_CHANGES, writes=Append("bronze.log")),
)
'''
CONF = """
sources:
  by_time: {kind: postgres, connection: shop, table: by_cursor, cursor: updated_at, key: id, max_rows_per_batch: 1000}
  by_number: {kind: postgres, connection: shop, table: by_cursor, cursor: number}
  by_changes: {kind: postgres, connection: shop, table: by_changes, mode: changes, max_rows_per_batch: 1500}
retry: {attempts: 0}
"""


def test_three_writers_and_no_row_lost_or_doubled(shop: Shop):
    seed = random.randrange(10**6)
    print("seed", seed)
    shop.database.do(*TABLES, "ALTER TABLE by_changes REPLICA IDENTITY FULL")
    bench = shop.job("mode: changes")
    (bench.root / "jobs/shop.py").unlink()
    (bench.root / "conf/base/shop.yml").unlink()
    bench.write("jobs/writers.py", JOB)
    bench.write("conf/base/writers.yml", CONF)
    runs, ends = 0, time.monotonic() + SECONDS
    with Writers(shop.database.uri, seed) as writers:
        while time.monotonic() < ends or runs < 3:
            bench.run("writers")
            runs += 1
    bench.run("writers")
    print(runs, "runs", writers.transactions, "transactions, the longest", writers.longest_s, "s")
    for table, source in (("by_time", "by_cursor"), ("by_number", "by_cursor"), ("by_changes", "by_changes")):
        held = bench.read(f"bronze.{table}").select("id", "value", "note").orderBy("id")
        stored = shop.database.rows(f"SELECT id, value, note FROM {source} ORDER BY id")
        assert [tuple(row) for row in held.collect()] == stored, table
    assert bench.quarantine("writers").count() == 0
    assert replayed(bench.read("bronze.log").collect()) == stored
    assert writers.longest_s > 1


def replayed(log: list) -> list:
    """What a table holds after its changes, in the order of their positions; each position is there once, and each fits."""
    positions = [row["_lsn"] for row in log if row["_lsn"] != min(row["_lsn"] for row in log)]
    assert len(positions) == len(set(positions))
    table: dict = {}
    for row in sorted(log, key=lambda row: row["_lsn"]):
        if row["_op"] == "delete":
            assert table.pop(row["id"]) is not None
        else:
            assert (row["id"] in table) == (row["_op"] == "update")
            table[row["id"]] = (row["id"], row["value"], row["note"])
    return sorted(table.values())
