"""Writers that never rest: transactions of all lengths, some of which are rolled back."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import psycopg

TABLES = (
    "CREATE SEQUENCE numbers",
    "CREATE TABLE by_cursor (id int PRIMARY KEY, value numeric(10,2), note text, "
    "updated_at timestamptz NOT NULL DEFAULT now(), number bigint NOT NULL DEFAULT nextval('numbers'))",
    "CREATE INDEX ON by_cursor (updated_at, id)",
    "CREATE INDEX ON by_cursor (number)",
    "CREATE TABLE by_changes (id int PRIMARY KEY, value numeric(10,2), note text)",
)
IDS = 300  # few enough that writers meet


class Writers:
    """Three threads that change the tables `by_cursor` (no deletes) and `by_changes` until they are stopped.

    Attributes:
        longest_s: of the transactions that were committed.
    """

    def __init__(self, uri: str, seed: int) -> None:
        self.uri, self.stopping, self.longest_s, self.transactions = uri, threading.Event(), 0.0, 0
        self.errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._write, args=(random.Random(seed + n),)) for n in range(3)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _write(self, dice: random.Random) -> None:
        try:
            with psycopg.connect(self.uri) as connection:
                while not self.stopping.is_set():
                    self._transaction(connection, dice)
        except BaseException as error:
            self.errors.append(error)

    def _transaction(self, connection: psycopg.Connection[Any], dice: random.Random) -> None:
        began = time.monotonic()
        try:
            for _ in range(dice.randint(1, 6)):
                self._change(connection, dice)
                time.sleep(dice.uniform(0.5, 2.5) if dice.random() < 0.05 else dice.uniform(0, 0.05))
            if dice.random() < 0.1:
                connection.rollback()
                return
            connection.commit()
        except psycopg.errors.DeadlockDetected:
            connection.rollback()
            return
        except psycopg.errors.UniqueViolation:
            connection.rollback()
            return
        self.transactions += 1
        self.longest_s = max(self.longest_s, time.monotonic() - began)

    def _change(self, connection: psycopg.Connection[Any], dice: random.Random) -> None:
        id_, other, value = dice.randint(1, IDS), dice.randint(1, IDS), dice.randint(-(10**6), 10**6) / 100
        note = "long " * dice.choice((0, 1, 2000)) + str(value)
        if dice.random() < 0.5:
            connection.execute(
                "INSERT INTO by_cursor (id, value, note) VALUES (%s, %s, %s) ON CONFLICT (id) DO UPDATE "
                "SET value = excluded.value, note = excluded.note, updated_at = now(), number = DEFAULT",
                (id_, value, note),
            )
            return
        what = dice.random()
        if what < 0.45:
            connection.execute(
                "INSERT INTO by_changes (id, value, note) VALUES (%s, %s, %s) ON CONFLICT (id) DO UPDATE "
                "SET value = excluded.value, note = excluded.note",
                (id_, value, note),
            )
        elif what < 0.7:
            connection.execute("UPDATE by_changes SET value = %s WHERE id = %s", (value, id_))
        elif what < 0.85:
            connection.execute("DELETE FROM by_changes WHERE id = %s", (id_,))
        else:
            connection.execute("UPDATE by_changes SET id = %s WHERE id = %s", (other, id_))
