"""What the jobs by hand share: the session, the split of good rows from bad ones, the merge, the keyed append.

A competent engineer's own helpers, and no more. With `tuned` they run with the engine's settings, taken from
`microbatch.session` so that the two cannot drift apart; without, with the defaults of Spark and Delta.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, DataFrameWriter, SparkSession
from pyspark.sql import functions as F


def session(name: str, jars: Path, tuned: bool) -> SparkSession:
    """A local session; without `tuned` nothing is set but what Delta cannot do without."""
    if tuned:
        return _tuned(name, jars)
    return (
        SparkSession.builder.appName(name)
        .config("spark.jars", ",".join(str(jar) for jar in sorted(jars.glob("*.jar"))))
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .getOrCreate()
    )


def _tuned(name: str, jars: Path) -> SparkSession:
    from microbatch import session as engines
    from microbatch.runner.flows import LOG

    spark = engines.start(name, {}, jars)
    # Delta refuses a persisted source where it does not make a copy of it itself, which is its default.
    spark.conf.set("spark.databricks.delta.merge.materializeSource", "auto")
    for name_, value in LOG.items():
        spark.conf.set(name_.replace("delta.", "spark.databricks.delta.properties.defaults.", 1), value)
    return spark


class ByHand:
    """A job's own helpers. Each query reads what is there and ends; its checkpoint is under `out/checkpoints`.

    Guarantee:
        Exactly once: appends and replaces carry a transaction id and the batch's number, merges are keyed and ordered.
        Letters are written before the target, so a crash between the two neither loses nor doubles a row.
    """

    def __init__(self, spark: SparkSession, landing: Path, out: Path) -> None:
        self.spark, self.landing, self.out = spark, landing, out
        self.properties: dict[str, dict[str, str]] = {}
        self.cluster_by: dict[str, str] = {}
        self._made: set[str] = set()

    @contextmanager
    def split(self, batch: DataFrame, reason: Column, flow: str, batch_id: int) -> Iterator[DataFrame]:
        """The rows without a reason to leave; those with one are in quarantine by then."""
        judged = batch.withColumn("_reason", reason).persist()
        try:
            bad = judged.where("_reason IS NOT NULL")
            if not bad.isEmpty():
                letters = bad.select(
                    F.lit(flow).alias("flow"),
                    F.lit(batch_id).cast("bigint").alias("batch_id"),
                    F.col("_reason").alias("reason"),
                    F.to_json(F.struct("*")).alias("payload"),
                )
                self.once(letters, f"{flow}/letters", batch_id).mode("append").save(self.at("ops/quarantine"))
            yield judged.where("_reason IS NULL").drop("_reason")
        finally:
            judged.unpersist()

    def merge(self, rows: DataFrame, table: str, keys: list[str], newest_by: str | None = None) -> None:
        """Update what is there by a version that is not older, insert the rest."""
        path = self.at(table)
        if table not in self._made:
            self._make(rows, table, path)
            self._made.add(table)
        same_key = " AND ".join(f"t.{key} = s.{key}" for key in keys)
        not_older = f"s.{newest_by} >= t.{newest_by}" if newest_by else None
        merge = DeltaTable.forPath(rows.sparkSession, path).alias("t").merge(rows.alias("s"), same_key)
        merge.whenMatchedUpdateAll(condition=not_older).whenNotMatchedInsertAll().execute()

    def _make(self, rows: DataFrame, table: str, path: str) -> None:
        create = DeltaTable.createIfNotExists(self.spark).location(path).addColumns(rows.schema)
        for name, value in self.properties.get(table, {}).items():
            create = create.property(name, value)
        if table in self.cluster_by:
            create = create.clusterBy(self.cluster_by[table])
        create.execute()

    def once(self, rows: DataFrame, writer: str, batch_id: int) -> DataFrameWriter:
        """A write that Delta does once for a writer and a batch."""
        delta = rows.write.format("delta")
        return delta.option("txnAppId", f"by_hand/{writer}").option("txnVersion", str(batch_id))

    def stream(self, name: str, rows: DataFrame, each: Callable[[DataFrame, int], None]) -> None:
        """Take in all that is there."""
        writer = rows.writeStream.queryName(name).foreachBatch(each).trigger(availableNow=True)
        writer.option("checkpointLocation", str(self.out / "checkpoints" / name)).start().awaitTermination()

    def read_stream(self, table: str, **options: str) -> DataFrame:
        """A table as a stream."""
        return self.spark.readStream.format("delta").options(**options).load(self.at(table))

    def at(self, table: str) -> str:
        """Where a table lies."""
        return str(self.out / "warehouse" / table)


def first_reason(*rules: tuple[Column, str]) -> Column:
    """The reason of the first rule that is broken, or null."""
    return F.coalesce(*(F.when(broken, F.lit(reason)) for broken, reason in rules))
