"""How Spark sees a reader of a server: a Python streaming data source that yields blocks of Arrow.

Spark writes a data source's options into its plans, and those into its event log. So there are none: the reader itself, with
the way to the server in it, is part of a class that is made for one query and travels to the workers by value.

Guarantee:
    An error of the engine's that is raised in a worker reaches the driver as itself: as a word in the text, see `errors`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pyspark.sql.datasource import DataSource, DataSourceReader, DataSourceStreamReader, InputPartition
from pyspark.sql.streaming.datasource import ReadAllAvailable, ReadLimit, ReadMaxRows, SupportsTriggerAvailableNow

from microbatch.errors import MicrobatchError, carried, redacted
from microbatch.sources.postgres.connection import Server

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

Offset = dict[str, Any]
Result = TypeVar("Result")
_WARMED: set[str] = set()  # applications whose processes run already


class Part(InputPartition):
    """What one task reads."""


class Reading(Protocol):
    """One reader between two offsets, as plain Python; it is pickled."""

    @property
    def server(self) -> Server: ...
    @property
    def max_rows(self) -> int | None: ...

    def first(self) -> Offset:
        """Where a new checkpoint begins."""

    def end(self, start: Offset, max_rows: int | None) -> Offset:
        """Where the batch ends that begins after `start`: `start` itself where there is nothing more."""

    def parts(self, start: Offset, end: Offset) -> list[Any]:
        """What the tasks of a batch read, side by side."""

    def blocks(self, part: Any, schema: StructType) -> Iterator[pa.RecordBatch]:
        """The rows of a part."""

    def done(self, end: Offset) -> None:
        """Spark has committed the batch that ends here."""


class Reader(DataSourceStreamReader, SupportsTriggerAvailableNow):
    """What Spark asks; every answer is `Reading`'s."""

    def __init__(self, reading: Reading, schema: StructType) -> None:
        self.reading, self.schema = reading, schema

    def initialOffset(self) -> Offset:
        return self._asked(self.reading.first)

    def getDefaultReadLimit(self) -> ReadLimit:
        most = self.reading.max_rows
        return ReadAllAvailable() if most is None else ReadMaxRows(most)

    def prepareForTriggerAvailableNow(self) -> None:
        """How far this query goes was fixed when it began."""

    def latestOffset(self, start: Offset, limit: ReadLimit) -> Offset:
        most = limit.max_rows if isinstance(limit, ReadMaxRows) else None
        return self._asked(functools.partial(self.reading.end, start, most))

    def partitions(self, start: Offset, end: Offset) -> Sequence[InputPartition]:
        return [Part(each) for each in self._asked(functools.partial(self.reading.parts, start, end))]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        with _carrying(self.reading.server):
            yield from self.reading.blocks(partition.value, self.schema)

    def commit(self, end: Offset) -> None:
        self._asked(functools.partial(self.reading.done, end))

    def _asked(self, question: Callable[[], Result]) -> Result:
        with _carrying(self.reading.server):
            return question()


def stream(spark: SparkSession, name: str, reading: Reading, schema: StructType) -> DataFrame:
    """The streaming frame of a reader.

    Args:
        name: tells it from those of other flows in the session.
        schema: of the blocks that `reading` gives.
    """

    class Made(DataSource):
        @classmethod
        def name(cls) -> str:
            return name

        def schema(self) -> StructType:
            return schema

        def streamReader(self, schema: StructType) -> DataSourceStreamReader:
            return Reader(reading, schema)

    spark.dataSource.register(Made)
    return spark.readStream.format(name).load()


class Nothing(DataSource):
    """A source without rows, in one part."""

    @classmethod
    def name(cls) -> str:
        return "microbatch_nothing"

    def schema(self) -> str:
        return "nothing INT"

    def reader(self, schema: StructType) -> DataSourceReader:
        return _NoRows()


class _NoRows(DataSourceReader):
    def partitions(self) -> Sequence[InputPartition]:
        return [InputPartition(0)]

    def read(self, partition: InputPartition) -> Iterator[tuple[int]]:
        import adbc_driver_postgresql  # noqa: F401  the process stays, and the first part of a batch finds it imported

        import microbatch.sources.postgres.values  # noqa: F401

        return iter(())


def warm(spark: SparkSession) -> None:
    """Start the processes that Spark asks about a source and reads it with; they stay. One Spark job, of no rows.

    While the first query starts, which waits for a process of its own: a million rows are in their table 2 s sooner (17.4 s to
    15.2, the whole command).
    """
    application = spark.sparkContext.applicationId
    if application in _WARMED:
        return
    _WARMED.add(application)
    spark.dataSource.register(Nothing)
    spark.read.format(Nothing.name()).load().collect()


@contextmanager
def _carrying(server: Server) -> Iterator[None]:
    try:
        yield
    except Exception as cause:
        error = cause if isinstance(cause, MicrobatchError) else server.translated(cause)
        if error is not None:
            raise RuntimeError(carried(error)) from None
        if redacted(str(cause), server.secrets()) != str(cause):
            raise RuntimeError(f"{type(cause).__name__}, whose text is not shown") from None
        raise
