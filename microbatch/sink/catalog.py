"""Tables under their names in the session's catalog, where the environment says `catalog: true`.

A table's files stay at its place below the warehouse, so that what looks at it without a JVM still finds it; the catalog gets
its name and that place, and never owns the files: dropping the name there removes no row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from microbatch.errors import StateChanged
from microbatch.sink.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def register(spark: SparkSession, flow: str, table: Table) -> None:
    """Give a table its name in the catalog; nothing where it has it, or where there is no table yet.

    Raises:
        StateChanged: the name is that of a table at another place.
    """
    if not table.exists():
        return
    if spark.catalog.tableExists(table.name):
        place = spark.sql(f"DESCRIBE DETAIL {table.name}").collect()[0]["location"]
        if place.removeprefix("file:").rstrip("/") != table.path.removeprefix("file:").rstrip("/"):
            what = f"the catalog has {table.name} at {place}, and the engine writes {table.path}"
            raise StateChanged(flow, what, "drop the name there, or let `storage.warehouse` point to that place")
        return
    schema, _, _ = table.name.rpartition(".")
    if schema:
        spark.sql(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    # A name of a table is [a-z][a-z0-9_]* in each part; only a path can hold a quote.
    place = table.path.replace("\\", "\\\\").replace("'", "\\'")
    spark.sql(f"CREATE TABLE IF NOT EXISTS {table.name} USING DELTA LOCATION '{place}'")
