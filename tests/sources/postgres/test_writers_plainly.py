"""Three writers, transactions of all lengths, and the readers a thousand times: every row and change once, without Spark."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from pyspark.sql.types import (
    DecimalType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from tests.sources.postgres.conftest import OF_CHANGES, Database
from tests.sources.postgres.plainly import Plainly
from tests.sources.postgres.writers import TABLES, Writers

pytestmark = pytest.mark.slow
SECONDS = float(os.environ.get("SOAK_S", "20"))  # SOAK_S=60 for a longer look
ROW = [StructField("id", IntegerType()), StructField("value", DecimalType(10, 2)), StructField("note", StringType())]
DDL = "id INT, value DECIMAL(10,2), note STRING"
TIME = StructField("updated_at", TimestampType())
NUMBER = StructField("number", LongType())


def upserted(reader: Plainly, newest_by: str) -> dict:
    """What an upsert would hold."""
    table: dict = {}
    for row in reader.rows():
        known = table.get(row["id"])
        if known is None or known[newest_by] <= row[newest_by]:
            table[row["id"]] = row
    return {id_: (row["value"], row["note"]) for id_, row in table.items()}


def replayed(reader: Plainly) -> dict:
    """What a table holds after its changes, each of which must fit what was there before."""
    rows = reader.rows()
    first = min((row["_lsn"] for row in rows), default=0)
    positions = [row["_lsn"] for row in rows if row["_lsn"] > first]
    assert len(positions) == len(set(positions))
    table: dict = {}
    for row in rows:
        if row["_op"] == "delete":
            assert table.pop(row["id"], None) is not None
        else:
            assert (row["id"] in table) == (row["_op"] == "update"), row
            table[row["id"]] = (row["value"], row["note"])
    newest: dict = {}
    for row in sorted(rows, key=lambda row: row["_lsn"]):  # and the same by position, as an upsert orders them
        newest[row["id"]] = None if row["_op"] == "delete" else (row["value"], row["note"])
    assert {id_: values for id_, values in newest.items() if values} == table
    return table


@pytest.mark.parametrize("identity", ["FULL", "DEFAULT"])
def test_every_row_and_every_change_is_read_once(database: Database, tmp_path: Path, identity: str):
    seed = random.randrange(10**6)
    print("seed", seed)
    database.do(*TABLES, f"ALTER TABLE by_changes REPLICA IDENTITY {identity}")
    dice = random.Random(seed)

    def reader(name: str, *more: StructField, ddl: str = DDL, **given: object) -> Plainly:
        return Plainly(tmp_path / name, database.uri, ddl, StructType([*ROW, *more]), **given)

    time_ddl, number_ddl = f"{DDL}, updated_at TIMESTAMP", f"{DDL}, number BIGINT"
    by_time = reader(
        "time", TIME, ddl=time_ddl, table="by_cursor", cursor="updated_at", key="id", max_rows_per_batch=40
    )
    whole = reader("whole", TIME, ddl=time_ddl, table="by_cursor", cursor="updated_at", max_rows_per_batch=30)
    by_number = reader("number", NUMBER, ddl=number_ddl, table="by_cursor", cursor="number", fetchers=1)
    changes = reader("changes", *OF_CHANGES, table="by_changes", mode="changes", slot=f"a_{database.name}")
    small = reader(
        "s", *OF_CHANGES, table="by_changes", mode="changes", slot=f"b_{database.name}", max_rows_per_batch=25
    )
    readers, runs, ends = [by_time, whole, by_number, changes, small], 0, time.monotonic() + SECONDS
    with Writers(database.uri, seed) as writers:
        time.sleep(1)
        while time.monotonic() < ends:
            dice.choice(readers).run(crash=dice.random() < 0.2)
            runs += 1
    for each in readers:
        each.run()
        assert each.run() == 0
    print(runs, "runs", writers.transactions, "transactions, the longest", writers.longest_s)
    stored = {row[0]: row[1:] for row in database.rows("SELECT id, value, note FROM by_cursor")}
    assert upserted(by_time, "updated_at") == stored
    assert upserted(whole, "updated_at") == stored
    assert upserted(by_number, "number") == stored
    stored = {row[0]: row[1:] for row in database.rows("SELECT id, value, note FROM by_changes")}
    unknown = [row for each in (changes, small) for row in each.rows() if row["_problem"]]
    if identity == "FULL":
        assert unknown == []
        assert replayed(changes) == replayed(small) == stored
    else:
        assert all("REPLICA IDENTITY FULL" in row["_problem"] for row in unknown)
        print(len(unknown), "not known of", len(changes.rows()) + len(small.rows()))
        assert known(changes, stored) and known(small, stored)
    assert runs > 5 and writers.longest_s > 1


def known(reader: Plainly, stored: dict) -> bool:
    """Whether every row whose newest change is whole is as the database has it, and the others are in quarantine."""
    newest: dict = {}
    for row in sorted(reader.rows(), key=lambda row: row["_lsn"]):
        newest[row["id"]] = row
    there = {id_: row for id_, row in newest.items() if row["_op"] != "delete"}
    assert there.keys() == stored.keys()
    wrong = {id_ for id_, row in there.items() if not row["_problem"] and (row["value"], row["note"]) != stored[id_]}
    return wrong == set()
