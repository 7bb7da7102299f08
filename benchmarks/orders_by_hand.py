"""The jobs of `benchmarks/suite` as a competent engineer writes them by hand: same reads, writes and guarantees, no engine.

`python -m benchmarks.orders_by_hand append_orders --home DIR` runs one over `DIR/landing` with the default settings of
Spark and Delta; `--tuned` takes the engine's. `--bulk` reads all that is there in one batch that is no stream.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from benchmarks.hand import ByHand, first_reason, session

ORDER = (
    "order_id BIGINT, customer_id BIGINT, product STRING, quantity INT, amount DECIMAL(10,2), status STRING, "
    "updated_at TIMESTAMP"
)
COLUMNS = [column.split()[0] for column in ORDER.split(", ")]
TABLES = {"append_orders": "bronze/orders", "merge_orders": "silver/orders"}


class Orders(ByHand):
    """Orders as JSON lines, one file a batch, appended or merged.

    Attributes:
        begins, ends: called at both ends of each batch.
    """

    begins: Callable[[], None] = staticmethod(lambda: None)
    ends: Callable[[], None] = staticmethod(lambda: None)

    def run(self, job: str) -> None:
        """Take in all that is there."""
        each = self._merge if job == "merge_orders" else self._append
        reader = self.spark.readStream.schema(f"{ORDER}, _corrupt STRING").option("maxFilesPerTrigger", 1)
        reader = reader.option("mode", "PERMISSIVE").option("columnNameOfCorruptRecord", "_corrupt")

        def batch(rows: DataFrame, batch_id: int) -> None:
            self.begins()
            each(rows, batch_id)
            self.ends()

        self.stream(job, reader.json(str(self.landing / job)), batch)

    def bulk(self, job: str) -> None:
        """Append all that is there at once."""
        reader = self.spark.read.schema(f"{ORDER}, _corrupt STRING").option("columnNameOfCorruptRecord", "_corrupt")
        self._append(reader.json(str(self.landing / job)), 0)

    def _append(self, batch: DataFrame, batch_id: int) -> None:
        with self.split(batch, _reason(), "orders", batch_id) as good:
            writer = self.once(good.select(*COLUMNS), "orders", batch_id)
            writer.mode("append").save(self.at(TABLES["append_orders"]))

    def _merge(self, batch: DataFrame, batch_id: int) -> None:
        with self.split(batch, _reason(), "orders", batch_id) as good:
            newest_first = Window.partitionBy("order_id").orderBy(F.desc("updated_at"))
            place = F.row_number().over(newest_first)
            newest = good.select(*COLUMNS).withColumn("_place", place).where("_place = 1").drop("_place")
            self.merge(newest, TABLES["merge_orders"], ["order_id"], newest_by="updated_at")


def _reason() -> Column:
    return first_reason(
        (F.col("_corrupt").isNotNull(), "not parsed"),
        (F.col("order_id").isNull(), "no order_id"),
        (F.col("amount").isNull() | (F.col("amount") <= 0), "nothing paid"),
        (~F.col("quantity").between(1, 100), "an odd quantity"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Orders, taken in by hand")
    parser.add_argument("job", choices=sorted(TABLES))
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--jars", type=Path, default=Path(".jars"))
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--bulk", action="store_true")
    given = parser.parse_args()
    spark = session("orders by hand", given.jars.resolve(), given.tuned)
    home = given.home.resolve()
    job = Orders(spark, home / "landing", home)
    (job.bulk if given.bulk else job.run)(given.job)
    spark.stop()


if __name__ == "__main__":
    main()
