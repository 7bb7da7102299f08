"""The job `merge_columns` by DuckDB and delta-rs: parquet files to a table of the newest version of each order.

Same guarantees: what breaks a rule is in quarantine with its reason before the table is committed, and the commit is keyed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import duckdb
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

KEY = ("by_duckdb/merge_columns", 0)
REASON = """
CASE WHEN order_id IS NULL THEN 'no order_id' WHEN amount IS NULL OR amount <= 0 THEN 'nothing paid'
     WHEN quantity NOT BETWEEN 1 AND 100 THEN 'an odd quantity' END
"""


def run(home: Path) -> None:
    """Take in what has landed, once."""
    table, letters = home / "warehouse/silver/columns", home / "warehouse/ops/quarantine"
    if (table / "_delta_log").is_dir() and DeltaTable(str(table)).transaction_version(KEY[0]) == KEY[1]:
        return
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
    rows = f"(SELECT *, {REASON} AS reason FROM read_parquet('{home}/landing/merge_columns/*.parquet'))"
    bad = connection.execute(
        f"SELECT reason, to_json(r) AS payload FROM {rows} r WHERE reason IS NOT NULL"
    ).to_arrow_table()
    keyed = CommitProperties(app_transactions=[Transaction(*KEY)])
    if bad.num_rows:
        write_deltalake(str(letters), bad, mode="append", commit_properties=keyed)
    newest = connection.sql(
        f"SELECT * EXCLUDE (reason) FROM {rows} WHERE reason IS NULL "
        "QUALIFY row_number() OVER (PARTITION BY order_id ORDER BY updated_at DESC) = 1"
    )
    write_deltalake(str(table), newest.to_arrow_reader(1_000_000), mode="append", commit_properties=keyed)


def main() -> None:
    parser = argparse.ArgumentParser(description="Orders, taken in by DuckDB and delta-rs")
    parser.add_argument("--home", type=Path, required=True)
    run(parser.parse_args().home.resolve())


if __name__ == "__main__":
    main()
