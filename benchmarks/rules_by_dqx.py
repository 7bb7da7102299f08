"""DQX, a peer: its own checks for the same twelve rules over one batch. It runs in an environment of its own (`make peers`)."""

from __future__ import annotations

import time
from pathlib import Path
from unittest.mock import create_autospec

from databricks.labs.dqx import check_funcs as check
from databricks.labs.dqx.engine import DQEngine
from databricks.labs.dqx.rule import DQDatasetRule, DQRowRule
from databricks.sdk import WorkspaceClient
from pyspark.sql import DataFrame, SparkSession

from benchmarks.orders_by_hand import ORDER


class Validation:
    """The rules over files of orders; DQX adds a column of errors and one of warnings to each row."""

    def __init__(self, spark: SparkSession) -> None:
        # DQX asks for a client of the platform it is of, and calls it for nothing that is used here.
        self.spark, self._engine = spark, DQEngine(create_autospec(WorkspaceClient), spark)
        self._checks = _checks()

    def of(self, file: Path) -> float:
        """The seconds that the checks add to a pass over rows that are in memory anyway."""
        rows = self.spark.read.schema(ORDER).json(str(file)).persist()
        rows.count()
        plain = _pass(rows)
        started = time.monotonic()
        checked = self._engine.apply_checks(rows, self._checks)
        checked = checked[0] if isinstance(checked, tuple) else checked
        took = time.monotonic() - started + _pass(checked)
        rows.unpersist()
        return took - plain


def _pass(rows: DataFrame) -> float:
    started = time.monotonic()
    rows.write.format("noop").mode("overwrite").save()
    return time.monotonic() - started


def _checks() -> list[DQRowRule | DQDatasetRule]:
    def row(function: object, column: str | None, criticality: str = "error", **words: object) -> DQRowRule:
        where = {"column": column} if column else {}
        return DQRowRule(check_func=function, criticality=criticality, check_func_kwargs=words, **where)

    def of_all(
        function: object, column: str, limit: float, aggregate: str, criticality: str = "error"
    ) -> DQDatasetRule:
        words = {"limit": limit, "aggr_type": aggregate}
        return DQDatasetRule(check_func=function, column=column, criticality=criticality, check_func_kwargs=words)

    return [
        row(check.is_not_null, "order_id"),
        row(check.is_not_null, "customer_id"),
        row(check.is_not_null, "amount"),
        row(check.sql_expression, None, expression="amount > 0"),
        row(check.is_in_range, "quantity", min_limit=1, max_limit=100),
        row(check.is_in_list, "status", allowed=["'open'", "'paid'", "'sent'", "'returned'"]),
        row(check.regex_match, "product", "warn", regex="^product-[0-9]+$"),
        row(check.sql_expression, None, "warn", expression="length(product) BETWEEN 9 AND 40"),
        of_all(check.is_aggr_not_less_than, "order_id", 1, "count"),
        of_all(check.is_aggr_not_less_than, "amount", 1, "avg", "warn"),
        of_all(check.is_aggr_not_greater_than, "amount", 100_000, "max"),
        DQDatasetRule(check_func=check.is_unique, columns=["order_id"], criticality="warn"),
    ]
