"""The job `daily_sales` as a competent engineer writes it by hand: same flows, tables and guarantees, no engine.

`python -m benchmarks.by_hand --landing DIR --out DIR` runs it with the default settings of Spark and Delta; `--tuned`
takes the settings that the engine uses on one machine. It ends with JSON: seconds, rows of each table, revenue.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, DataFrameWriter, SparkSession, Window
from pyspark.sql import functions as F

ORDER_LINE = (
    "household_id BIGINT, store_id BIGINT, basket_id BIGINT, product_id BIGINT, quantity BIGINT, sales_value DOUBLE, "
    "retail_disc DOUBLE, coupon_disc DOUBLE, coupon_match_disc DOUBLE, week INT, transaction_timestamp TIMESTAMP"
)
PRODUCT = (
    "product_id BIGINT, manufacturer_id BIGINT, department STRING, brand STRING, product_category STRING, "
    "product_type STRING, package_size STRING"
)
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
TUNED = {
    "spark.ui.enabled": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.driver.extraJavaOptions": "-Duser.timezone=UTC",
    "spark.sql.shuffle.partitions": str(CORES),
    "spark.databricks.delta.snapshotPartitions": "1",
}


def session(jars: Path, tuned: bool) -> SparkSession:
    builder = (
        SparkSession.builder.appName("daily_sales by hand")
        .config("spark.jars", ",".join(str(jar) for jar in sorted(jars.glob("*.jar"))))
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    )
    for key, value in TUNED.items() if tuned else ():
        builder = builder.config(key, value)
    return builder.getOrCreate()


class DailySales:
    """The four flows. Each query reads what is there and ends; its checkpoint is under `out/checkpoints`.

    Guarantee:
        Exactly once: appends and replaces carry a transaction id and the batch's number, merges are keyed and ordered.
        Letters are written before the target, so a crash between the two neither loses nor doubles a row.
    """

    def __init__(self, spark: SparkSession, landing: Path, out: Path) -> None:
        self.spark, self.landing, self.out = spark, landing, out

    def run(self) -> None:
        self._stream("order_lines", self._order_lines(), self._append_order_lines)
        self._stream("products", self._products(), self._merge_products)
        self._stream("sales", self._read_stream("bronze/order_lines"), self._merge_sales)
        changes = self._read_stream("silver/sales", readChangeFeed="true")
        self._stream("totals", changes, self._replace_totals)

    def _order_lines(self) -> DataFrame:
        return (
            self.spark.readStream.schema(f"{ORDER_LINE}, _corrupt STRING")
            .option("mode", "PERMISSIVE")
            .option("columnNameOfCorruptRecord", "_corrupt")
            .option("maxFilesPerTrigger", "31")
            .json(str(self.landing / "order_lines"))
        )

    def _products(self) -> DataFrame:
        return self.spark.readStream.schema(PRODUCT).parquet(str(self.landing / "products"))

    def _append_order_lines(self, batch: DataFrame, batch_id: int) -> None:
        reason = _first_reason(
            (F.col("_corrupt").isNotNull(), "not parsed"),
            (F.col("basket_id").isNull(), "no basket_id"),
            (F.col("product_id").isNull(), "no product_id"),
            (F.col("store_id").isNull(), "no store_id"),
            (F.col("transaction_timestamp").isNull(), "no transaction_timestamp"),
            (F.col("quantity") < 0, "quantity below 0"),
        )
        with self._split(batch, reason, "order_lines", batch_id) as good:
            self._once(good.drop("_corrupt"), "order_lines", batch_id).mode("append").save(
                self._at("bronze/order_lines")
            )

    def _merge_products(self, batch: DataFrame, batch_id: int) -> None:
        reason = _first_reason((F.col("product_id").isNull() | (F.col("product_id") <= 0), "no product_id"))
        with self._split(batch, reason, "products", batch_id) as good:
            self._merge(good.dropDuplicates(["product_id"]), "bronze/products", ["product_id"])

    def _merge_sales(self, batch: DataFrame, batch_id: int) -> None:
        products = self.spark.read.format("delta").load(self._at("bronze/products"))
        reason = _first_reason(
            (F.col("order_id").isNull() | F.col("product_id").isNull(), "no key"),
            (F.col("customer_id").isNull(), "no customer_id"),
            (F.col("amount").isNull(), "no amount"),
            (F.col("amount") <= 0, "amount not over 0"),
            (F.col("order_date").isNull(), "no order_date"),
            (~F.col("order_date").between("2000-01-01", "2099-12-31"), "order_date out of range"),
        )
        with self._split(_refined(batch, products), reason, "sales", batch_id) as good:
            newest_first = Window.partitionBy("order_id", "product_id").orderBy(F.desc("ordered_at"))
            newest = good.withColumn("_place", F.row_number().over(newest_first)).where("_place = 1").drop("_place")
            self._merge(newest, "silver/sales", ["order_id", "product_id"], newest_by="ordered_at")

    def _replace_totals(self, changes: DataFrame, batch_id: int) -> None:
        days = [row.order_date for row in changes.select("order_date").distinct().collect()]
        if not days:
            return
        sales = self.spark.read.format("delta").load(self._at("silver/sales")).where(F.col("order_date").isin(days))
        reason = _first_reason(
            (F.col("revenue").isNull() | (F.col("revenue") <= 0), "revenue not over 0"),
            (F.col("lines") < F.col("orders"), "fewer lines than orders"),
        )
        with self._split(_totals(sales), reason, "totals", batch_id) as good:
            changed = ", ".join(f"DATE'{day}'" for day in days)
            writer = self._once(good, "totals", batch_id).mode("overwrite")
            writer.option("replaceWhere", f"order_date IN ({changed})").save(self._at("gold/daily_sales"))

    @contextmanager
    def _split(self, rows: DataFrame, reason: Column, flow: str, batch_id: int) -> Iterator[DataFrame]:
        """The rows without a reason to leave; those with one are in quarantine by then."""
        judged = rows.withColumn("_reason", reason).persist()
        try:
            bad = judged.where("_reason IS NOT NULL")
            if not bad.isEmpty():
                letters = bad.select(
                    F.lit(flow).alias("flow"),
                    F.lit(batch_id).cast("bigint").alias("batch_id"),
                    F.col("_reason").alias("reason"),
                    F.to_json(F.struct("*")).alias("payload"),
                )
                self._once(letters, f"{flow}/letters", batch_id).mode("append").save(self._at("ops/quarantine"))
            yield judged.where("_reason IS NULL").drop("_reason")
        finally:
            judged.unpersist()

    def _merge(self, rows: DataFrame, table: str, keys: list[str], newest_by: str | None = None) -> None:
        path = self._at(table)
        create = DeltaTable.createIfNotExists(self.spark).location(path).addColumns(rows.schema)
        if table == "silver/sales":
            create = create.property("delta.enableChangeDataFeed", "true").clusterBy("order_date")
        create.execute()
        same_key = " AND ".join(f"t.{key} = s.{key}" for key in keys)
        not_older = f"s.{newest_by} >= t.{newest_by}" if newest_by else None
        merge = DeltaTable.forPath(self.spark, path).alias("t").merge(rows.alias("s"), same_key)
        merge.whenMatchedUpdateAll(condition=not_older).whenNotMatchedInsertAll().execute()

    def _stream(self, name: str, rows: DataFrame, each: Callable[[DataFrame, int], None]) -> None:
        writer = rows.writeStream.queryName(name).foreachBatch(each).trigger(availableNow=True)
        writer.option("checkpointLocation", str(self.out / "checkpoints" / name)).start().awaitTermination()

    def _read_stream(self, table: str, **options: str) -> DataFrame:
        return self.spark.readStream.format("delta").options(**options).load(self._at(table))

    def _once(self, rows: DataFrame, writer: str, batch_id: int) -> DataFrameWriter:
        delta = rows.write.format("delta")
        return delta.option("txnAppId", f"by_hand/{writer}").option("txnVersion", str(batch_id))

    def _at(self, table: str) -> str:
        return str(self.out / "warehouse" / table)


def _first_reason(*rules: tuple[Column, str]) -> Column:
    return F.coalesce(*(F.when(broken, F.lit(reason)) for broken, reason in rules))


def _refined(order_lines: DataFrame, products: DataFrame) -> DataFrame:
    described = products.select(
        "product_id",
        *(F.nullif(F.trim(name), F.lit("")).alias(name) for name in ("department", "brand", "product_category")),
    )
    return order_lines.join(F.broadcast(described), "product_id", "left").select(
        F.col("basket_id").alias("order_id"),
        "product_id",
        F.col("household_id").alias("customer_id"),
        "store_id",
        "quantity",
        F.col("sales_value").try_cast("decimal(12,2)").alias("amount"),
        F.col("retail_disc").try_cast("decimal(12,2)").alias("retail_discount"),
        F.col("coupon_disc").try_cast("decimal(12,2)").alias("coupon_discount"),
        F.col("coupon_match_disc").try_cast("decimal(12,2)").alias("coupon_match_discount"),
        F.col("transaction_timestamp").alias("ordered_at"),
        F.to_date("transaction_timestamp").alias("order_date"),
        "department",
        "brand",
        "product_category",
        "week",
    )


def _totals(sales: DataFrame) -> DataFrame:
    return sales.groupBy("order_date", "store_id", "department").agg(
        F.count_distinct("order_id").alias("orders"),
        F.count("*").alias("lines"),
        F.sum("quantity").alias("units"),
        F.sum("amount").cast("decimal(18,2)").alias("revenue"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="The job daily_sales, written by hand")
    parser.add_argument("--landing", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jars", type=Path, default=Path(".jars"))
    parser.add_argument("--tuned", action="store_true", help="with the settings that the engine uses on one machine")
    given = parser.parse_args()
    started = time.monotonic()
    spark = session(given.jars.resolve(), given.tuned)
    DailySales(spark, given.landing.resolve(), given.out.resolve()).run()
    seconds = time.monotonic() - started
    tables = {
        name: spark.read.format("delta").load(str(given.out.resolve() / "warehouse" / path))
        for name, path in {"silver": "silver/sales", "quarantine": "ops/quarantine", "gold": "gold/daily_sales"}.items()
    }
    found: dict[str, object] = {"seconds": round(seconds, 1)}
    found |= {f"{name}_rows": table.count() for name, table in tables.items()}
    found["revenue"] = str(tables["gold"].agg(F.sum("revenue")).first()[0])
    print(json.dumps(found))
    spark.stop()


if __name__ == "__main__":
    main()
