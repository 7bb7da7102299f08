"""Orders out of a PostgreSQL by Spark's own JDBC source, two partitions, appended to a Delta table; one read, no stream.

`python -m benchmarks.orders_by_jdbc URL FOLDER --home DIR`: the driver's jars lie in FOLDER.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from pyspark.sql import functions as F

from benchmarks.hand import session


def main() -> None:
    parser = argparse.ArgumentParser(description="Orders by JDBC")
    parser.add_argument("url")
    parser.add_argument("driver", type=Path)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--jars", type=Path, default=Path(".jars"))
    given = parser.parse_args()
    both = given.home / "jars"
    both.mkdir(parents=True, exist_ok=True)
    for jar in (*given.jars.resolve().glob("*.jar"), *given.driver.resolve().glob("*postgresql-*.jar")):
        link = both / jar.name
        if not link.exists():
            link.symlink_to(jar)
    spark = session("orders by jdbc", both, tuned=True)
    began = time.monotonic()
    source = {"url": given.url, "dbtable": "orders", "driver": "org.postgresql.Driver", "fetchsize": "10000"}
    whole = spark.read.format("jdbc").options(**source)
    first, last = whole.load().agg(F.min("order_id"), F.max("order_id")).collect()[0]
    parts = {"partitionColumn": "order_id", "lowerBound": first, "upperBound": last, "numPartitions": 2}
    rows = whole.options(**parts).load()
    rows.write.format("delta").save(str(given.home / "warehouse" / "bronze" / "orders"))
    print(f"{time.monotonic() - began:.3f}")  # seconds of read and write
    spark.stop()


if __name__ == "__main__":
    main()
