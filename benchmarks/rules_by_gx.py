"""Great Expectations' own validation of one batch, as its manual calls it: what a job pays that calls it on each batch."""

from __future__ import annotations

import time
from pathlib import Path

import yaml
from pyspark.sql import SparkSession

from benchmarks.orders_by_hand import ORDER


class Validation:
    """The rules of a file over files of orders. GX keeps the batch in memory while it looks, which is its default."""

    def __init__(self, spark: SparkSession, rules: Path) -> None:
        import great_expectations as gx

        self.spark = spark
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        asset = context.data_sources.add_spark("spark").add_dataframe_asset("orders")
        self._batch = asset.add_batch_definition_whole_dataframe("batch")
        told = yaml.safe_load(rules.read_text())["expectations"]
        made = [{"type": each["type"], "kwargs": each["kwargs"]} for each in told]
        self._suite = gx.ExpectationSuite(name="twelve", expectations=made)

    def of(self, file: Path) -> float:
        """The seconds that validating a file adds to a job that has its rows in memory anyway."""
        rows = self.spark.read.schema(ORDER).json(str(file)).persist()
        rows.count()
        started = time.monotonic()
        result = self._batch.get_batch({"dataframe": rows}).validate(self._suite)
        took = time.monotonic() - started
        rows.unpersist()
        if len(result.results) != len(self._suite.expectations) or any(
            r.exception_info.get("raised_exception") for r in result.results
        ):
            raise RuntimeError(f"Great Expectations did not evaluate all rules: {result}")
        return took
