"""The readers without Spark: offsets in a folder as Spark keeps them, and the rows of each batch in a list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql.types import StringType, StructField, StructType, TimestampType

from microbatch.config.kinds import PostgresConf
from microbatch.errors import StateChanged
from microbatch.sources.postgres import ChangesInput, CursorInput, Server, Slot
from microbatch.sources.postgres.values import HIDDEN, UNPARSED
from microbatch.sources.tables import numbered, offsets

Row = dict[str, Any]


def conf(**given: Any) -> PostgresConf:
    """What conf says of a source."""
    return PostgresConf(kind="postgres", connection="shop", **given)


def server(uri: str, **options: Any) -> Server:
    return Server("orders", "ingest", "shop", uri, options)


class Plainly:
    """One reader with a checkpoint.

    Attributes:
        input: the source as a flow reads it.
        batches: the rows of each batch that was committed.
    """

    def __init__(self, checkpoint: Path, uri: str, ddl: str, shape: StructType, **given: Any) -> None:
        self.checkpoint, self.conf, self.ddl, self.uri = checkpoint, conf(**given), ddl, uri
        is_there = self.conf.cursor in shape.fieldNames() and shape[str(self.conf.cursor)].dataType == TimestampType()
        more = HIDDEN if self.conf.mode == "cursor" and not is_there else ""
        self.schema = StructType([*shape, *([StructField(more, StringType())] if more else []), *UNPARSED])
        self.batches: list[list[Row]] = []
        for folder in ("offsets", "commits"):
            (checkpoint / folder).mkdir(parents=True, exist_ok=True)

    def input(self) -> CursorInput | ChangesInput:
        """As a run makes it."""
        if self.conf.mode == "cursor":
            return CursorInput(server(self.uri), self.ddl, self.conf, self.checkpoint)
        name = self.conf.slot or "microbatch_test"
        slot = Slot(server(self.uri), name, self.conf.publication or name)
        return ChangesInput(server(self.uri), self.ddl, self.conf, slot, self.checkpoint)

    def run(self, crash: bool = False) -> int:
        """Take in what is there; rows. With `crash` the first batch is planned and read, and not committed."""
        input_ = self.input()
        input_.fetch()
        unfinished = numbered(self.checkpoint / "offsets") != numbered(self.checkpoint / "commits")
        if not input_.pending() and not unfinished:
            return 0
        with input_.server.session() as session:
            reading = input_._reading(session)
        taken = 0
        start, number = self._committed(reading)
        while True:
            planned = self.checkpoint / "offsets" / str(number)
            if planned.exists():
                end = json.loads(offsets(self.checkpoint, number))
            else:
                end = reading.end(start, reading.max_rows)
                if end == start:
                    return taken
                planned.write_text(f"v1\n{{}}\n{json.dumps(end)}")
            rows = [
                row
                for part in reading.parts(start, end)
                for b in reading.blocks(part, self.schema)
                for row in b.to_pylist()
            ]
            if crash:
                return len(rows)
            (self.checkpoint / "commits" / str(number)).write_text("v1\n{}")
            self.batches.append(rows)
            reading.done(end)
            taken, start, number = taken + len(rows), end, number + 1

    def _committed(self, reading: Any) -> tuple[Row, int]:
        done = numbered(self.checkpoint / "commits")
        return (json.loads(offsets(self.checkpoint, done[-1])), done[-1] + 1) if done else (reading.first(), 0)

    def rows(self) -> list[Row]:
        return [row for batch in self.batches for row in batch]


def stopped(reader: Plainly) -> str:
    """What a run says that stops with exit 1 and leaves the checkpoint as it was."""
    before = {file: file.read_bytes() for file in reader.checkpoint.rglob("*") if file.is_file()}
    with pytest.raises(StateChanged) as caught:
        reader.run()
    assert {file: file.read_bytes() for file in reader.checkpoint.rglob("*") if file.is_file()} == before
    assert caught.value.exit_code == 1
    return str(caught.value)
