"""The job `daily_sales` as a competent engineer writes it by hand: same flows, tables and guarantees, no engine.

`python -m benchmarks.by_hand --landing DIR --out DIR` runs it with the default settings of Spark and Delta; `--tuned`
takes the settings that the engine uses on one machine.
"""

import argparse
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from benchmarks.hand import ByHand, first_reason, session

ORDER_LINE = (
    "household_id BIGINT, store_id BIGINT, basket_id BIGINT, product_id BIGINT, quantity BIGINT, sales_value DOUBLE, "
    "retail_disc DOUBLE, coupon_disc DOUBLE, coupon_match_disc DOUBLE, week INT, transaction_timestamp TIMESTAMP"
)
PRODUCT = (
    "product_id BIGINT, manufacturer_id BIGINT, department STRING, brand STRING, product_category STRING, "
    "product_type STRING, package_size STRING"
)


class DailySales(ByHand):
    """The four flows.

    Args:
        files: how many files of order lines a batch holds.
    """

    def __init__(self, spark: SparkSession, landing: Path, out: Path, files: int) -> None:
        super().__init__(spark, landing, out)
        self.files = files
        self.properties = {"silver/sales": {"delta.enableChangeDataFeed": "true"}}
        self.cluster_by = {"silver/sales": "order_date"}

    def run(self) -> None:
        self.stream("order_lines", self._order_lines(), self._append_order_lines)
        self.stream("products", self._products(), self._merge_products)
        self.stream("sales", self.read_stream("bronze/order_lines"), self._merge_sales)
        changes = self.read_stream("silver/sales", readChangeFeed="true")
        self.stream("totals", changes, self._replace_totals)

    def _order_lines(self) -> DataFrame:
        return (
            self.spark.readStream.schema(f"{ORDER_LINE}, _corrupt STRING")
            .option("mode", "PERMISSIVE")
            .option("columnNameOfCorruptRecord", "_corrupt")
            .option("maxFilesPerTrigger", str(self.files))
            .json(str(self.landing / "order_lines"))
        )

    def _products(self) -> DataFrame:
        return self.spark.readStream.schema(PRODUCT).parquet(str(self.landing / "products"))

    def _append_order_lines(self, batch: DataFrame, batch_id: int) -> None:
        reason = first_reason(
            (F.col("_corrupt").isNotNull(), "not parsed"),
            (F.col("basket_id").isNull(), "no basket_id"),
            (F.col("product_id").isNull(), "no product_id"),
            (F.col("store_id").isNull(), "no store_id"),
            (F.col("transaction_timestamp").isNull(), "no transaction_timestamp"),
            (F.col("quantity") < 0, "quantity below 0"),
        )
        with self.split(batch, reason, "order_lines", batch_id) as good:
            self.once(good.drop("_corrupt"), "order_lines", batch_id).mode("append").save(self.at("bronze/order_lines"))

    def _merge_products(self, batch: DataFrame, batch_id: int) -> None:
        reason = first_reason((F.col("product_id").isNull() | (F.col("product_id") <= 0), "no product_id"))
        with self.split(batch, reason, "products", batch_id) as good:
            self.merge(good.dropDuplicates(["product_id"]), "bronze/products", ["product_id"])

    def _merge_sales(self, batch: DataFrame, batch_id: int) -> None:
        products = self.spark.read.format("delta").load(self.at("bronze/products"))
        reason = first_reason(
            (F.col("order_id").isNull() | F.col("product_id").isNull(), "no key"),
            (F.col("customer_id").isNull(), "no customer_id"),
            (F.col("amount").isNull(), "no amount"),
            (F.col("amount") <= 0, "amount not over 0"),
            (F.col("order_date").isNull(), "no order_date"),
            (~F.col("order_date").between("2000-01-01", "2099-12-31"), "order_date out of range"),
        )
        with self.split(_refined(batch, products), reason, "sales", batch_id) as good:
            newest_first = Window.partitionBy("order_id", "product_id").orderBy(F.desc("ordered_at"))
            newest = good.withColumn("_place", F.row_number().over(newest_first)).where("_place = 1").drop("_place")
            self.merge(newest, "silver/sales", ["order_id", "product_id"], newest_by="ordered_at")

    def _replace_totals(self, changes: DataFrame, batch_id: int) -> None:
        days = [row.order_date for row in changes.select("order_date").distinct().collect()]
        if not days:
            return
        sales = self.spark.read.format("delta").load(self.at("silver/sales")).where(F.col("order_date").isin(days))
        reason = first_reason(
            (F.col("revenue").isNull() | (F.col("revenue") <= 0), "revenue not over 0"),
            (F.col("lines") < F.col("orders"), "fewer lines than orders"),
        )
        with self.split(_totals(sales), reason, "totals", batch_id) as good:
            changed = ", ".join(f"DATE'{day}'" for day in days)
            writer = self.once(good, "totals", batch_id).mode("overwrite")
            writer.option("replaceWhere", f"order_date IN ({changed})").save(self.at("gold/daily_sales"))


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
    parser.add_argument("--files", type=int, default=31, help="files of order lines in a batch (default: 31)")
    given = parser.parse_args()
    spark = session("daily_sales by hand", given.jars.resolve(), given.tuned)
    DailySales(spark, given.landing.resolve(), given.out.resolve(), given.files).run()
    spark.stop()


if __name__ == "__main__":
    main()
