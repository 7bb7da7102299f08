"""A small suite of two flows that the engine's tests share, and its rows."""

from __future__ import annotations

from pathlib import Path

ORDERS_JOB = '''
"""Orders, the newest version of each."""

from microbatch import Append, Flow, Job, Source, Upsert
from transforms import orders

JOB = Job(
    Flow("ingest", reads=Source("orders", schema="order_id BIGINT, amount DECIMAL(10,2), updated_at TIMESTAMP"),
         writes=Append("bronze.orders")),
    Flow("refine", reads="bronze.orders", transform=orders.refine, expects="orders",
         writes=Upsert("silver.orders", keys=["order_id"], newest_by="updated_at")),
)
'''
ORDERS_TRANSFORM = '''
"""Orders."""

from pyspark.sql import functions as F


def refine(orders):
    """Add the cents."""
    return orders.withColumn("cents", (F.col("amount") * 100).cast("bigint"))
'''
ORDERS_RULES = """
name: orders
expectations:
  - type: expect_column_values_to_be_between
    kwargs: {column: amount, min_value: 0, strict_min: true}
    severity: critical
  - type: expect_column_values_to_be_between
    kwargs: {column: amount, max_value: 1000}
    severity: warning
"""
ORDERS_CONF = """
owner: tests
sources:
  orders: {kind: files, format: json, path: "${landing}/orders"}
retry: {attempts: 0}
"""


def write(root: Path, landed: str) -> None:
    """Make the suite in a folder, with one file landed."""
    files = {
        "jobs/orders.py": ORDERS_JOB,
        "transforms/orders.py": ORDERS_TRANSFORM,
        "expectations/orders/orders.yml": ORDERS_RULES,
        "conf/base/orders.yml": ORDERS_CONF,
        "data/landing/orders/1.json": landed,
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def order(order_id: int | None, amount: str | None = "1.00", minute: int = 0) -> dict[str, object]:
    """One order as it is landed."""
    return {"order_id": order_id, "amount": amount, "updated_at": f"2024-01-01T00:{minute:02}:00Z"}
