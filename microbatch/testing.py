"""The test kit, a pytest plugin for this repository and for suites of others: `spark`, `rows` and `bench`.

    def test_a_crash_before_the_commit_neither_loses_nor_repeats_a_row(bench):
        bench.land("orders", PAID, PAID | {"order_id": None})
        bench.crash("orders", before="commit")
        assert [outcome.batch_id for outcome in bench.run("orders")] == [0]
        assert bench.read("sales.orders").count() == 1

A bench is the suite under test with its storage in a folder of the test's own: real Delta tables, real checkpoints. The suite
is pytest's root folder, or that of `microbatch_suite` in its configuration, or the one a test writes with `bench.write`.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from microbatch import session
from microbatch.config import Suite, load
from microbatch.config.kinds import FilesConf
from microbatch.errors import BatchFailed
from microbatch.outcome import Outcome
from microbatch.runner import Report
from microbatch.runner import run as run_jobs
from microbatch.sink import ops
from microbatch.sink.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# The steps of a batch, in order. "commit" is Spark's own commit of the offsets, after the ledger.
STEPS = ("keep", "judge", "letters", "deletes", "target", "ledger", "commit")
Step = Literal["judge", "letters", "deletes", "target", "ledger", "commit"]


class Crash(BatchFailed):
    """A staged crash: the run ends there, and nothing is wrong with the batch."""

    of_the_batch = False


class Bench:
    """A suite with storage of its own.

    Attributes:
        root: the suite's folder.
        storage: root name -> folder, all below the test's own.
    """

    def __init__(self, spark: SparkSession, root: Path, folder: Path) -> None:
        self.spark, self.root, self._own = spark, root, folder / "suite"
        self.storage = {name: str(folder / name) for name in ("landing", "warehouse", "checkpoints", "reports")}
        self._landed = 0

    def write(self, path: str, text: str) -> Path:
        """Write a file of a suite that this test makes for itself: `bench.write("jobs/orders.py", "…")`."""
        self.root = self._own
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def suite(self, env: str = "local") -> Suite:
        """The suite, loaded anew, its storage that of the test.

        Raises:
            ConfigError: with every mistake of its files.
        """
        return load(self.root, env, storage=self.storage)

    def land(self, source: str, *records: Mapping[str, Any] | str, name: str | None = None) -> Path:
        """Land one file for a source, in its format: records are dicts, or lines of text that are written as they are.

        Args:
            name: the file's name; made up unless given.

        Returns:
            The file.
        """
        conf = next(job.conf.sources[source] for job in self.suite().jobs.values() if source in job.conf.sources)
        assert isinstance(conf, FilesConf), f"{source} is of kind {conf.kind}: only files are landed"
        self._landed += 1
        folder = Path(conf.path)
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / (name or f"{self._landed:04}.{conf.format}")
        half = folder / f"_{target.name}"
        _WRITERS.get(conf.format, _columnar(conf.format))(half, records)
        half.rename(target)
        return target

    def run(self, *jobs: str, flows: Sequence[str] = (), crash_before: Step | None = None) -> list[Outcome]:
        """Run jobs to their end.

        Returns:
            The outcomes of the batches, in their order.

        Raises:
            MicrobatchError: the first error of the run.
        """
        report = self.report(*jobs, flows=flows, crash_before=crash_before)
        if report.errors:
            raise report.errors[0]
        return report.outcomes

    def report(self, *jobs: str, flows: Sequence[str] = (), crash_before: Step | None = None) -> Report:
        """Run jobs to their end, whatever it is: states, outcomes and errors by flow, and the exit code."""

        def reached(step: str, batch_id: int) -> None:
            if crash_before is not None and STEPS.index(step) + 1 == STEPS.index(crash_before):
                raise Crash("of the test", batch_id, f"crash before {crash_before}")

        return run_jobs(self.suite(), jobs, flows=flows, reached=reached)

    def crash(self, *jobs: str, before: Step, flows: Sequence[str] = ()) -> None:
        """Run jobs and let the first batch crash before a step: "letters", "deletes", "target", "ledger", "commit".

        Raises:
            Failed: no batch came so far.
        """
        with pytest.raises(Crash):
            self.run(*jobs, flows=flows, crash_before=before)

    def read(self, table: str) -> DataFrame:
        """A table as it is now."""
        return self.spark.read.format("delta").load(Table(self.storage["warehouse"], table).path)

    table = read

    def quarantine(self, job: str) -> DataFrame:
        """A job's dead letters."""
        letters = ops.rows(self.storage["warehouse"], "quarantine", [("job", "=", job)])
        kinds = {"string": "STRING", "long": "BIGINT", "time": "TIMESTAMP"}
        reasons = "ARRAY<STRUCT<expectation: STRING, column: STRING, severity: STRING, message: STRING>>"
        schema = ", ".join(f"{name} {kinds.get(kind, reasons)}" for name, kind in ops.TABLES["quarantine"].items())
        return self.spark.createDataFrame([tuple(letter.values()) for letter in map(_plain, letters)], schema)

    def ledger(self, job: str) -> list[dict[str, Any]]:
        """A job's rows of the ledger, oldest first."""
        return sorted(
            ops.rows(self.storage["warehouse"], "batches", [("job", "=", job)]), key=lambda b: b["started_at"]
        )

    def checkpoint(self, job: str, flow: str) -> Path:
        """A flow's checkpoint."""
        return Path(self.storage["checkpoints"]) / job / flow

    def versions(self) -> dict[str, int | None]:
        """The version of every table of the warehouse, for "nothing was changed"."""
        warehouse = Path(self.storage["warehouse"])
        names = [".".join(log.parent.relative_to(warehouse).parts) for log in sorted(warehouse.glob("*/*/_delta_log"))]
        return {name: Table(str(warehouse), name).version() for name in names}


def _plain(letter: dict[str, Any]) -> dict[str, Any]:
    return {**letter, "reasons": [tuple(reason.values()) for reason in letter["reasons"]]}


def _json(file: Path, records: Sequence[Mapping[str, Any] | str]) -> None:
    lines = [
        record if isinstance(record, str) else json.dumps(record, default=_text, ensure_ascii=False)
        for record in records
    ]
    file.write_text("".join(f"{line}\n" for line in lines))


def _csv(file: Path, records: Sequence[Mapping[str, Any] | str]) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        for number, record in enumerate(records):
            if isinstance(record, str):
                stream.write(f"{record}\n")
                continue
            if number == 0:
                writer.writerow(record)
            writer.writerow(["" if value is None else _text(value) for value in record.values()])


def _lines(file: Path, records: Sequence[Mapping[str, Any] | str]) -> None:
    file.write_text("".join(f"{record}\n" for record in records))


def _columnar(kind: str) -> Callable[[Path, Sequence[Any]], None]:
    def write(file: Path, records: Sequence[Any]) -> None:
        import pyarrow as pa

        table = pa.Table.from_pylist(list(records))
        if kind == "parquet":
            import pyarrow.parquet as pq

            pq.write_table(table, file)
        elif kind == "orc":
            import pyarrow.orc as orc

            orc.write_table(table, file)
        else:
            raise ValueError(
                f"bench.land writes json, csv, text, parquet and orc, not {kind}; write the file with Spark"
            )

    return write


_WRITERS: dict[str, Callable[[Path, Sequence[Any]], None]] = {"json": _json, "csv": _csv, "text": _lines}


def _text(value: object) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def pytest_configure() -> None:
    """A process that pytest-xdist starts has no file, and PySpark takes such a one for a doctest and ends it."""
    main = sys.modules["__main__"]
    if not hasattr(main, "__file__"):
        main.__file__ = __file__


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("microbatch_suite", "the folder of the suite under test, below pytest's root folder", default=".")


def brief() -> dict[str, str]:
    """Settings of Spark for a process that lives for a few small batches.

    Tests run each plan once or twice: the time that goes into generating its code and compiling it well never comes back.
    Warm rounds of five flows took 25 s of CPU with generated code, 15 without; a cold run of two 28 s, 22 with Java's first
    compiler alone. That compiler has 48 MiB for its code unless told, which one test of a session fills: from then on Java
    compiles nothing any more, and all that is new is interpreted.
    """
    java = f"{session.java_options(session.jars_folder())} {session.FIRST_COMPILER} -XX:ReservedCodeCacheSize=240m"
    return {**session.LITTLE, "spark.driver.extraJavaOptions": java}


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One session for all tests, as a local run has it."""
    home = tmp_path_factory.mktemp("spark")
    os.environ.setdefault("TZ", "UTC")
    conf = {
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": str(home),
        "spark.driver.memory": "2g",
        **brief(),
    }
    yield session.start("tests", conf)
    session.stop()


@pytest.fixture
def rows(spark: SparkSession) -> Callable[..., DataFrame]:
    """Make a table: `rows("order_id BIGINT, amount_cents BIGINT", (1, 1999), (2, None))`."""

    def make(schema: str, *values: tuple[Any, ...]) -> DataFrame:
        return spark.createDataFrame(list(values), schema)

    return make


@pytest.fixture
def bench(spark: SparkSession, tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    """The suite under test, with storage of its own."""
    root = request.config.rootpath / request.config.getini("microbatch_suite")
    return Bench(spark, root, tmp_path)
