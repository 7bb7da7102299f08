"""The engine adds no Spark job to what a competent job by hand, with quarantine and the same settings, needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from microbatch.runner import run
from microbatch.testing import Bench
from tests.orders import ORDERS_CONF, order

TWELVE = """
name: orders
expectations:
  - {type: expect_column_values_to_not_be_null, kwargs: {column: order_id}}
  - {type: expect_column_values_to_not_be_null, kwargs: {column: amount}}
  - {type: expect_column_values_to_not_be_null, kwargs: {column: updated_at}}
  - {type: expect_column_values_to_be_between, kwargs: {column: amount, min_value: 0, strict_min: true}}
  - {type: expect_column_values_to_be_between, kwargs: {column: amount, max_value: 100000}, severity: warning}
  - {type: expect_column_values_to_be_between, kwargs: {column: order_id, min_value: 0}}
  - {type: expect_column_values_to_be_between, kwargs: {column: cents, min_value: 1}, severity: warning}
  - {type: expect_column_values_to_be_in_set, kwargs: {column: cents, value_set: [100, 200, 300]}, severity: warning}
  - type: expect_column_pair_values_a_to_be_greater_than_b
    kwargs: {column_A: cents, column_B: order_id, or_equal: true}
    severity: warning
  - {type: expect_table_row_count_to_be_between, kwargs: {min_value: 1}}
  - {type: expect_column_max_to_be_between, kwargs: {column: amount, max_value: 100000}}
  - {type: expect_column_mean_to_be_between, kwargs: {column: amount, min_value: 0}, severity: warning}
"""
NONE = """
name: orders
expectations:
  - {type: expect_column_values_to_not_be_null, kwargs: {column: order_id}}
"""
BAD = ('{"order_id": null, "amount": "1.00"}', "{broken")


def jobs_so_far(spark: SparkSession) -> int:
    return int(spark.sparkContext._jsc.sc().dagScheduler().numTotalJobs())


def by_hand(spark: SparkSession, folder: Path, landing: str, merge: bool) -> int:
    """The same batch as a competent engineer writes it: parse, persist, quarantine, append or merge; its jobs once warm."""
    from delta.tables import DeltaTable

    counts: list[int] = []
    good_path, bad_path = str(folder / "good"), str(folder / "bad")

    def batch(rows: DataFrame, batch_id: int) -> None:
        before = jobs_so_far(spark)
        is_bad = F.col("_corrupt").isNotNull() | F.col("order_id").isNull() | (F.col("amount") <= 0)
        judged = rows.withColumn("bad", F.coalesce(is_bad, F.lit(True))).persist()
        bad = judged.where("bad")
        if not bad.isEmpty():
            bad.write.format("delta").mode("append").option("txnAppId", "hand").option("txnVersion", batch_id).save(
                bad_path
            )
        good = judged.where("NOT bad").select("order_id", "amount", "updated_at")
        if merge and DeltaTable.isDeltaTable(judged.sparkSession, good_path):
            # Delta refuses a persisted source where it does not make a copy of it itself, which is its default.
            judged.sparkSession.conf.set("spark.databricks.delta.merge.materializeSource", "auto")
            newest = good.groupBy("order_id").agg(F.max_by(F.struct("*"), "updated_at").alias("row")).select("row.*")
            target = DeltaTable.forPath(judged.sparkSession, good_path).alias("t")
            into = target.merge(newest.alias("s"), "t.order_id = s.order_id")
            into.whenMatchedUpdateAll("s.updated_at >= t.updated_at").whenNotMatchedInsertAll().execute()
        else:
            good.write.format("delta").mode("append").option("txnAppId", "hand").option("txnVersion", batch_id).save(
                good_path
            )
        judged.unpersist()
        counts.append(jobs_so_far(spark) - before)

    schema = "order_id BIGINT, amount DECIMAL(10,2), updated_at TIMESTAMP, _corrupt STRING"
    reader = (
        spark.readStream.schema(schema).option("columnNameOfCorruptRecord", "_corrupt").option("maxFilesPerTrigger", 1)
    )
    writer = (
        reader.json(landing).writeStream.foreachBatch(batch).option("checkpointLocation", str(folder / "checkpoint"))
    )
    writer.trigger(availableNow=True).start().awaitTermination()
    return counts[-1]


def engines(bench: Bench, flow: str) -> int:
    """The jobs of the newest, warm batch of a flow; planning its rules takes one more, once a run."""
    marks: dict[str, int] = {}

    def reached(step: str, _: int) -> None:
        marks[step] = jobs_so_far(bench.spark)

    report = run(bench.suite(), ["orders"], flows=[flow], reached=reached)
    assert not report.errors, report.errors
    return marks["commit"] - marks["keep"]


@pytest.mark.slow
@pytest.mark.parametrize("bad", [(), BAD], ids=["all good", "some bad"])
def test_a_warm_batch_runs_no_more_spark_jobs_than_the_same_by_hand(
    orders: Bench, tmp_path: Path, bad: tuple[str, ...]
):
    orders.write("expectations/orders/orders.yml", NONE)
    orders.write("conf/base/orders.yml", ORDERS_CONF.replace("format: json", "format: json, max_files_per_batch: 1"))

    def land(number: int) -> None:
        orders.land("orders", *[order(number * 10 + i) for i in range(10)], *bad)

    for number in range(2):
        land(number)
        orders.run("orders")
    measured = {}
    for number, (name, rules) in enumerate({"one rule": NONE, "twelve rules": TWELVE}.items(), 2):
        orders.write("expectations/orders/orders.yml", rules)
        land(number)
        measured[name] = engines(orders, "ingest"), engines(orders, "refine")
    landing = f"{orders.storage['landing']}/orders"
    hand_append = by_hand(orders.spark, tmp_path / "append", landing, merge=False)
    hand_merge = by_hand(orders.spark, tmp_path / "merge", landing, merge=True)
    print(f"append and merge: {measured}, by hand {hand_append} and {hand_merge}")
    for append, merge in measured.values():
        assert append <= hand_append
        assert merge <= hand_merge


@pytest.mark.slow
def test_neither_twelve_rules_nor_all_that_is_told_of_a_run_add_a_spark_job(orders: Bench):
    """Lineage, metrics and alerts: what is told is counted in the ledger, and Spark is not asked a second time."""
    counts = {}
    for first, name, rules in ((0, "one", NONE), (100, "twelve", TWELVE)):
        orders.write("expectations/orders/orders.yml", rules)
        if name == "twelve":
            told = "channels: {ops: {url: ''}}\nmetrics: {file: orders.prom}\nlineage: {file: lineage.jsonl}\n"
            orders.write("conf/base/environment.yml", told)
            alerts = (
                'alerts: [{when: "quarantined_ratio > 0.02", notify: [ops]}, {when: "lag_rows > 1", notify: [ops]}]\n'
            )
            orders.write("conf/base/orders.yml", ORDERS_CONF + alerts)
        for number in range(2):
            # New keys both times: a MERGE that only updates takes a job less than one that inserts.
            orders.land("orders", *[order(first + number * 10 + i) for i in range(10)])
            orders.run("orders", flows=["ingest"])
            counts[name] = engines(orders, "refine")
    assert counts["twelve"] == counts["one"]
    assert "microbatch_rows_read_total" in (orders.root / "orders.prom").read_text()
    assert '"eventType":"COMPLETE"' in (orders.root / "lineage.jsonl").read_text().replace(" ", "")
