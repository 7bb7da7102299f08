"""Tables as streams: what was appended comes row for row, what was upserted or replaced as its changes."""

from __future__ import annotations

import datetime
import json
import shutil
import time
from pathlib import Path

import pyarrow
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from microbatch.errors import SnapshotUnavailable, StateChanged
from microbatch.sink.tables import Table
from microbatch.sources.tables import TableInput
from microbatch.testing import Bench

JOB = """
from microbatch import Append, Flow, Job, Replace, Snapshot, Source, Upsert
from transforms import shop

SALES = Source("sales", schema="id BIGINT, day DATE, shop STRING, amount BIGINT, at BIGINT, gone BOOLEAN")

JOB = Job(
    Flow("ingest", reads=SALES, writes=Append("bronze.sales")),
    {flows}
)
"""
KEEP = """
    Flow("keep", reads="bronze.sales",
         writes=Upsert("silver.sales", keys="id", newest_by="at", delete_when="gone")),
"""
FOLLOW = """
    Flow("log", reads="silver.sales", writes=Append("gold.log")),
    Flow("follow", reads="silver.sales",
         writes=Upsert("gold.sales", keys="id", newest_by="_changed_at", delete_when="_op = 'delete'")),
"""
TOTAL = """
    Flow("total", reads="silver.sales", recompute_by=["{by}"], transform=shop.total_by_{by},
         writes=Replace("gold.totals", keys=["{by}"])),
"""
COPIES = """
    Flow("copy", reads="silver.sales", writes=Upsert("gold.copy", keys="id", delete_when="_op = 'delete'")),
    Flow("dated", reads="silver.sales", transform=shop.same,
         writes=Upsert("gold.dated", keys="id", newest_by="at", delete_when="_op = 'delete'")),
"""
TRANSFORMS = '''
from pyspark.sql import functions as F


def same(sales):
    """Add a column."""
    return sales.withColumn("twice", F.col("amount") * 2)


def total_by_shop(sales):
    """Total a shop."""
    return sales.groupBy("shop").agg(F.sum("amount").alias("total"), F.count("*").alias("sales"))


def total_by_both(sales):
    """Total a shop and a day."""
    return sales.groupBy("shop", "day").agg(F.sum("amount").alias("total"))


def dated(sales, shops):
    """Add what is known of the shop."""
    return sales.join(shops, "shop", "left")
'''
CONF = """
sources:
  sales: {kind: files, format: json, path: "${landing}/sales"}
retry: {attempts: 0}
"""
PAIR = 'recompute_by=["shop", "day"], transform=shop.total_by_both, writes=Replace("gold.both", keys=["shop", "day"])'


def declare(bench: Bench, flows: str, conf: str = CONF) -> None:
    bench.write("jobs/shop.py", JOB.format(flows=flows))
    bench.write("transforms/shop.py", TRANSFORMS)
    bench.write("conf/base/shop.yml", conf)


def sale(id_: int, shop: str | None, amount: int, at: int = 1, *, day: str | None = "2024-01-01", gone: bool = False):
    return {"id": id_, "day": day, "shop": shop, "amount": amount, "at": at, "gone": gone}


def found(bench: Bench, table: str, *columns: str) -> list[tuple]:
    """The rows of a table in order, nulls last."""
    rows = [tuple(row) for row in bench.read(table).select(*columns).collect()]
    return sorted(rows, key=lambda row: [(value is None, value) for value in row])


def states(bench: Bench) -> list[str]:
    return [flow.state for flow in bench.report("shop").flows]


@pytest.mark.slow
def test_of_several_changes_of_a_key_in_one_batch_the_one_that_came_last_wins(bench: Bench):
    """No time tells them apart: a delete shows the row as it was, with the time that the row had."""
    declare(bench, KEEP + COPIES)
    many, lost = range(1, 13), range(20, 23)
    for amount in (1, 2, 3):  # each a version of the table; what comes after the first is one batch of its readers
        bench.land("sales", *[sale(id_, "a", amount) for id_ in many], *[sale(id_, "b", amount) for id_ in lost])
        bench.run("shop", flows=["ingest", "keep"] if amount > 1 else [])
    bench.land("sales", *[sale(id_, "b", 3, at=2, gone=True) for id_ in lost])
    bench.run("shop", flows=["ingest", "keep"])
    bench.crash("shop", before="target", flows=["copy", "dated"])
    outcomes = [outcome for outcome in bench.run("shop") if outcome.flow in ("copy", "dated")]
    assert {outcome.rows_read for outcome in outcomes} == {33}
    for table in ("gold.copy", "gold.dated"):
        rows = bench.read(table).select("id", "amount").collect()
        assert {tuple(row) for row in rows} == {(id_, 3) for id_ in many}, table


def test_an_appended_table_is_read_row_for_row_by_each_of_its_readers(bench: Bench):
    copy = 'Flow("copy", reads="bronze.sales", writes=Append("silver.copy")),'
    declare(bench, f'{copy}\n    Flow("again", reads=SALES, writes=Append("bronze.again")),')
    bench.land("sales", sale(1, "a", 5), sale(1, "a", 5), sale(2, None, 6))
    bench.run("shop", flows=["ingest", "copy"])
    bench.land("sales", sale(3, "b", 7))
    assert bench.report("shop").exit_code == 0
    expected = [(1, 5), (1, 5), (2, 6), (3, 7)]
    for table in ("bronze.sales", "bronze.again", "silver.copy"):
        assert found(bench, table, "id", "amount") == expected
    batches = {(batch["flow"], batch["batch_id"]) for batch in bench.ledger("shop")}
    assert {("ingest", 1), ("copy", 1), ("again", 0)} <= batches
    bench.spark.sql(f"OPTIMIZE delta.`{bench.storage['warehouse']}/bronze/sales`")
    assert states(bench) == ["idle"] * 3
    bench.land("sales", sale(4, "b", 8))
    bench.run("shop")
    assert found(bench, "silver.copy", "id", "amount") == [*expected, (4, 8)]


@pytest.mark.slow
def test_an_upserted_table_is_read_as_its_changes_and_a_delete_is_followed(bench: Bench):
    declare(bench, KEEP + FOLLOW)
    for records in (
        [sale(1, "a", 5), sale(2, "a", 6)],
        [sale(1, "b", 7, 2), sale(3, "b", 8), sale(2, "a", 1, 0)],
        [sale(2, None, 0, 3, gone=True), sale(9, None, 0, 3, gone=True)],
    ):
        bench.land("sales", *records)
        outcomes = bench.run("shop")
    assert [(o.flow, o.rows_read, o.rows_written) for o in outcomes if o.flow in ("follow", "log")] == [
        ("log", 1, 1),
        ("follow", 1, 1),
    ]
    assert found(bench, "silver.sales", "id", "shop", "amount") == [(1, "b", 7), (3, "b", 8)]
    assert found(bench, "gold.sales", "id", "shop", "amount") == [(1, "b", 7), (3, "b", 8)]
    assert found(bench, "gold.log", "id", "amount", "_op") == [
        (1, 5, "insert"),
        (1, 7, "update"),
        (2, 6, "delete"),
        (2, 6, "insert"),
        (3, 8, "insert"),
    ]
    times = [row._changed_at for row in bench.read("gold.log").select("_changed_at").distinct().collect()]
    assert len(times) == 3
    assert all(isinstance(time, datetime.datetime) for time in times)
    before = bench.versions()
    assert states(bench) == ["idle"] * 4
    bench.spark.sql(f"OPTIMIZE delta.`{bench.storage['warehouse']}/silver/sales`")
    assert states(bench) == ["idle"] * 4
    assert {name: version for name, version in bench.versions().items() if name != "silver.sales"} == {
        name: version for name, version in before.items() if name != "silver.sales"
    }


@pytest.mark.slow
def test_groups_are_made_anew_from_both_images_of_a_change_nulls_and_empty_ones_included(bench: Bench):
    both = f'Flow("both", reads="silver.sales", {PAIR}),'
    declare(bench, KEEP + TOTAL.format(by="shop") + both)
    bench.land(
        "sales", sale(1, "a", 5), sale(2, "a", 6), sale(3, None, 7), sale(4, "b's", 8), sale(5, "a", 1, day=None)
    )
    bench.run("shop")
    assert found(bench, "gold.totals", "shop", "total") == [("a", 12), ("b's", 8), (None, 7)]
    assert len(found(bench, "gold.both", "shop")) == 4
    # 2 moves from a to null, 4 goes and leaves its group empty, b is new.
    bench.land("sales", sale(2, None, 6, 2), sale(4, None, 0, 2, gone=True), sale(6, "b", 9))
    outcomes = {outcome.flow: outcome for outcome in bench.run("shop")}
    assert found(bench, "gold.totals", "shop", "total") == [("a", 6), ("b", 9), (None, 13)]
    assert {(row[0], str(row[1]), row[2]) for row in found(bench, "gold.both", "shop", "day", "total")} == {
        ("a", "2024-01-01", 5),
        ("a", "None", 1),
        ("b", "2024-01-01", 9),
        (None, "2024-01-01", 13),
    }
    total = outcomes["total"]
    assert (total.rows_read, total.rows_transformed, total.rows_written) == (3, 3, 3)
    assert states(bench) == ["idle"] * 4


@pytest.mark.slow
def test_more_groups_than_are_listed_one_by_one_come_out_right(bench: Bench):
    declare(bench, KEEP + TOTAL.format(by="shop"))
    bench.land("sales", *[sale(number, f"shop {number // 2}" if number > 9 else None, 1) for number in range(2_400)])
    bench.run("shop")
    bench.land("sales", *[sale(number, f"shop {number // 2}", 3, 2) for number in range(2_398)])
    bench.run("shop")
    expected = [(f"shop {number}", 6) for number in range(1_199)] + [("shop 1199", 2)]
    assert found(bench, "gold.totals", "shop", "total") == sorted(expected)


@pytest.mark.slow
def test_the_changes_of_a_replaced_table_keep_a_key_whose_group_was_made_anew(bench: Bench):
    """Making a group anew deletes and inserts the same key in one commit: the row that is there at its end must stay."""
    follow = """
        Flow("follow", reads="gold.totals",
             writes=Upsert("gold.followed", keys="shop", newest_by="_changed_at", delete_when="_op = 'delete'")),
    """
    declare(bench, KEEP + TOTAL.format(by="shop") + follow)
    shops = [f"shop {number}" for number in range(8)]
    bench.land("sales", *[sale(number, shop, 1) for number, shop in enumerate(shops)])
    bench.run("shop")
    bench.land(
        "sales", *[sale(number, shop, 2, 2) for number, shop in enumerate(shops[:-1])], sale(7, None, 0, 2, gone=True)
    )
    bench.run("shop")
    assert found(bench, "gold.totals", "shop", "total") == [(shop, 2) for shop in shops[:-1]]
    assert found(bench, "gold.followed", "shop", "total") == [(shop, 2) for shop in shops[:-1]]


def test_a_value_with_a_separator_of_unicodes_does_not_cut_the_log(tmp_path: Path):
    """Statistics of a commit hold it as it is, and Python's `splitlines` takes it for the end of a line."""
    table = Table(str(tmp_path), "bronze.sales")
    names = ["one\u2028two", "three\u2029four", "five\u0085six"]
    for name in names:
        write_deltalake(table.path, pyarrow.table({"name": [name]}), mode="append")
    found = [action for version in range(3) for action in table.actions(version) or []]
    assert [json.loads(each["add"]["stats"])["minValues"]["name"] for each in found if "add" in each] == names


TIMES = '''
from pyspark.sql import functions as F


def counted(times):
    """Count the rows of a local time."""
    return times.groupBy("local").agg(F.sum("amount").alias("total"))


def dated(times):
    """Give each row its day."""
    return times.withColumn("day", F.to_date("at"))
'''
TIMES_JOB = """
from microbatch import Flow, Job, Replace, Source, Upsert
from transforms import times

TIMES = Source("times", schema="at TIMESTAMP, local TIMESTAMP_NTZ, amount BIGINT")
JOB = Job(
    Flow("keep", reads=TIMES, transform=times.dated, writes=Upsert("silver.times", keys=["at", "day"])),
    Flow("count", reads="silver.times", recompute_by=["local"], transform=times.counted,
         writes=Replace("gold.times", keys=["local"])),
)
"""


@pytest.mark.slow
def test_times_are_the_same_in_whatever_zone_the_process_is(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    bench.write("transforms/times.py", TIMES)
    bench.write("jobs/times.py", TIMES_JOB)
    bench.write("conf/base/times.yml", 'sources:\n  times: {kind: files, format: json, path: "${landing}/times"}\n')
    twice = ["2024-11-03T05:30:00", "2024-11-03T06:30:00"]  # the same hour in New York, where the clock is put back
    ends = ["0001-01-01T00:00:00", "9999-12-31T23:59:59.999999"]
    never = ["2024-03-10T02:30:00"]  # there the clock is put forward
    monkeypatch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
    time.tzset()
    try:
        for amount in (1, 2):
            bench.land("times", *[{"at": f"{at}Z", "local": at, "amount": amount} for at in [*twice, *ends, *never]])
            outcomes = bench.run("times")
            assert [outcome.rows_inserted for outcome in outcomes] == ([5, 5] if amount == 1 else [0, 5])
            kept = bench.read("silver.times").selectExpr("unix_micros(at) AS at", "amount").collect()
            assert len({row.at for row in kept}) == 5 and {row.amount for row in kept} == {amount}
            counted = bench.read("gold.times").selectExpr("CAST(local AS STRING) AS local", "total").collect()
            assert {row.local for row in counted} == {at.replace("T", " ") for at in [*twice, *ends, *never]}
            assert len(counted) == 5 and {row.total for row in counted} == {amount}
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.fixture
def copied(bench: Bench) -> Bench:
    """An appended table that was read to its end by a second flow."""
    declare(bench, 'Flow("copy", reads="bronze.sales", writes=Append("silver.copy")),')
    for number in range(2):
        bench.land("sales", sale(number, "a", 5))
        bench.run("shop")
    return bench


def stopped(bench: Bench) -> str:
    """What stops the copying flow; its table is as it was."""
    before = bench.versions()["silver.copy"]
    report = bench.report("shop", flows=["copy"])
    assert report.exit_code == 1
    [error] = report.errors
    assert isinstance(error, StateChanged)
    assert "--accept checkpoint" in str(error) and len(str(error).splitlines()) == 1
    assert bench.versions()["silver.copy"] == before
    return str(error)


@pytest.mark.slow
def test_a_table_that_others_changed_under_its_reader_stops_it(copied: Bench):
    path = f"{copied.storage['warehouse']}/bronze/sales"
    saved = Path(path).with_name("saved")
    shutil.copytree(path, saved)

    def put_back() -> None:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(saved, path)
        copied.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()

    copied.spark.read.format("delta").load(path).limit(1).write.format("delta").mode("overwrite").save(path)
    assert "changed from outside" in stopped(copied)
    put_back()
    DeltaTable(path).delete("id = 0")  # a whole file: nothing is added
    assert "changed from outside" in stopped(copied)
    put_back()
    DeltaTable(path).restore(0)
    assert "changed from outside" in stopped(copied)
    shutil.rmtree(path)
    assert "table bronze.sales, which it reads, is gone" in stopped(copied)
    DeltaTable.create(path, DeltaTable(str(saved)).schema())
    assert "table bronze.sales, which it reads, was made anew" in stopped(copied)
    put_back()
    for number in (0, 1):
        Path(path, "_delta_log", f"{number:020}.json").unlink()
        shutil.copy(saved / "_delta_log" / f"{number:020}.json", Path(path, "_delta_log"))
    assert copied.report("shop").exit_code == 0


@pytest.mark.parametrize("changes", [False, True], ids=["rows", "changes"])
def test_what_is_pending_is_none_exactly_when_every_row_was_read(spark: SparkSession, tmp_path: Path, changes: bool):
    table, checkpoint = Table(str(tmp_path), "bronze.t"), tmp_path / "checkpoint"
    read: dict[int, int] = {}

    def append(number: int) -> None:
        writer = spark.range(number * 10, number * 10 + 4).repartition(2).write.format("delta")
        writer.option("delta.enableChangeDataFeed", "true").mode("append").save(table.path)

    def read_on() -> None:
        reader = spark.readStream.format("delta").option("maxFilesPerTrigger", 1)
        stream = (reader.option("readChangeFeed", "true") if changes else reader).load(table.path)
        writer = stream.writeStream.foreachBatch(lambda batch, number: read.update({number: batch.count()}))
        writer.option("checkpointLocation", str(checkpoint)).trigger(availableNow=True).start().awaitTermination()

    def pending(after: int) -> int:
        """What is pending where the batch `after` was the last one."""
        part = tmp_path / "part"
        shutil.rmtree(part, ignore_errors=True)
        (part / "offsets").mkdir(parents=True)
        for number in range(after + 1):
            shutil.copy(checkpoint / "offsets" / str(number), part / "offsets")
        return TableInput(table, part, changes).pending()

    assert TableInput(table, checkpoint, changes).pending() == 0
    append(0)
    append(1)
    assert TableInput(table, checkpoint, changes).pending() == 2
    read_on()
    append(2)
    append(3)
    assert TableInput(table, checkpoint, changes).pending() == 2
    read_on()
    last = max(read)
    assert [pending(number) == 0 for number in range(last + 1)] == [False] * last + [True]
    assert sum(read.values()) == 16
    assert pending(last - 1) == 1
    DeltaTable(table.path).optimize.compact()
    DeltaTable(table.path).alter.set_table_properties({"delta.checkpointInterval": "20"})
    assert pending(last) == 0


SHOPS = """Flow("ingest_shops", reads=Source("shops", schema="shop STRING, city STRING"), writes=Append("bronze.shops")),
    Flow("date", reads="bronze.sales", transform=shop.dated, snapshots={{"shops": {snapshot}}}, writes=Append("silver.dated")),"""


@pytest.mark.slow
def test_a_snapshot_that_is_missing_too_small_or_too_old_stops_its_flow_to_be_tried_later(bench: Bench):
    conf = CONF.replace("retry", '  shops: {kind: files, format: json, path: "${landing}/shops"}\nretry')

    def refused(snapshot: str) -> str:
        declare(bench, SHOPS.format(snapshot=snapshot), conf)
        before = bench.versions().get("silver.dated")
        report = bench.report("shop", flows=["date"])
        assert report.exit_code == 5
        assert isinstance(report.errors[0], SnapshotUnavailable)
        assert bench.versions().get("silver.dated") == before
        return str(report.errors[0])

    declare(bench, SHOPS.format(snapshot='"bronze.shops"'), conf)
    bench.land("sales", sale(1, "a", 5))
    bench.land("shops", {"shop": "a", "city": "x"})
    bench.run("shop", flows=["ingest"])
    assert "flow date needs a snapshot of bronze.shops: the table is not there yet" in refused('"bronze.shops"')
    bench.run("shop", flows=["ingest_shops"])
    assert "it has 1 rows, 2 are needed (min_rows)" in refused('Snapshot("bronze.shops", min_rows=2)')
    log = Path(bench.storage["warehouse"], "bronze/shops/_delta_log")
    for checksum in log.glob(".*.crc"):
        checksum.unlink()
    for commit in log.glob("*.json"):
        lines = [json.loads(line) for line in commit.read_text().splitlines()]
        for line in lines:
            if "commitInfo" in line:
                line["commitInfo"]["timestamp"] -= 2 * 3_600_000
        commit.write_text("\n".join(json.dumps(line) for line in lines))
    assert "it is 2.0 h old, 1.5 are allowed (max_age_h)" in refused('Snapshot("bronze.shops", max_age_h=1.5)')
    shops = DeltaTable(Table(bench.storage["warehouse"], "bronze.shops").path)
    for night in range(5):
        shops.optimize.compact()
        shops.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
        shops.alter.set_table_properties({"delta.logRetentionDuration": f"interval {60 + night} days"})
    assert "it is 2.0 h old, 1.5 are allowed (max_age_h)" in refused('Snapshot("bronze.shops", max_age_h=1.5)')
    declare(bench, SHOPS.format(snapshot='Snapshot("bronze.shops", max_age_h=3)'), conf)
    assert bench.report("shop").exit_code == 0
    assert found(bench, "silver.dated", "id", "city") == [(1, "x")]
