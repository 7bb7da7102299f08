"""What a source has to be: the few things a run asks of whatever a flow reads.

`Files` decides itself which files a batch reads; every other input is a `Stream`, whose micro-batches Spark brings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from microbatch.places import Place

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

NEWEST = "_mb_newest"  # TIMESTAMP beside the rows of a stream: when each came to be, for the ledger's `newest_at`


class Input(Protocol):
    """What one flow reads."""

    unit: ClassVar[str]
    """What `pending` counts, in the singular: file, version, row…"""

    @property
    def checkpoint(self) -> Place:
        """The flow's own."""

    def fetch(self) -> None:
        """Bring what is outside within reach of a stream, where the source has to; called once a run, before `pending`.

        Raises:
            SourceUnavailable: it did not answer.
        """

    def pending(self) -> int:
        """How much no batch has taken in yet, in `unit`s, without a JVM; 0: a run has nothing to do.

        Raises:
            SourceUnavailable: it did not answer.
            StateChanged: it is not what was read so far.
            ConfigError: it refuses what conf says of it.
        """

    def stream(self, spark: SparkSession) -> DataFrame:
        """The streaming frame; its offsets are kept in the flow's checkpoint."""

    def of_letters(self, texts: DataFrame, shape: StructType) -> DataFrame:
        """The rows of dead letters, read again as this source reads them.

        Args:
            texts: `_letter` STRING (the id, which passes through), `kind` STRING (row or parse), `value` STRING (the payload).
            shape: what the flow's transform is given.

        Returns:
            `_letter` and at least those columns of `shape` that a letter holds, `_row`, `_unparsed`, `_problem`.
        """


class Stream(Input, Protocol):
    """An input whose rows are those of the micro-batch that Spark brings."""

    def rows(self, batch: DataFrame) -> DataFrame:
        """The rows of a micro-batch with the engine's columns (see `parse`), and where known `NEWEST` and `ORDER`."""

    def sample(self, spark: SparkSession, most: int) -> DataFrame:
        """At most so many rows that would come next (else some that came), as `rows` gives them; nothing is taken in."""


@runtime_checkable
class Kept(Protocol):
    """An input whose server keeps, for this reader alone, what it has not taken in."""

    def lag_bytes(self) -> int | None:
        """How much that is; None before there is anything.

        Raises:
            SourceUnavailable: it did not answer.
        """


@runtime_checkable
class Advising(Protocol):
    """An input that knows of something somebody should know before a run."""

    def notes(self) -> list[str]:
        """One sentence each, no secret in it; nothing is changed.

        Raises:
            SourceUnavailable: it did not answer.
        """
