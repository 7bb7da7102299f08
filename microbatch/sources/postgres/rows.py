"""What both ways of reading a table share: rows with the engine's columns, letters, and what is read of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from microbatch import empty
from microbatch.errors import StateChanged
from microbatch.places import Place
from microbatch.sink.tables import ORDER
from microbatch.sources.postgres.connection import START_ANEW, Server
from microbatch.sources.tables import last_offset

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import StructType

MOST_COUNTED = 100_000  # what waits is counted so far: beyond it only a scan of the whole table would say more


def offset_of(checkpoint: Place) -> dict[str, Any] | None:
    """Where the newest batch of a checkpoint ends, or None where none was planned yet."""
    offset = last_offset(checkpoint)
    return None if offset is None else dict(json.loads(offset))


def refuse_other_server(server: Server, offset: dict[str, Any] | None, now: str) -> None:
    """Refuse to go on at a server that is not the one that was read.

    Raises:
        StateChanged: it is another one: a copy, or one that was restored into a new cluster.
    """
    if offset is not None and offset["system_identifier"] != now:
        what = (
            f"source {server.source} is another server: system_identifier was {offset['system_identifier']}, is {now}"
        )
        raise StateChanged(server.flow, what, f"connect to the server that was read so far, or {START_ANEW}")


def shaped(
    batch: DataFrame,
    declared: StructType,
    added: dict[str, Column],
    newest: Column | None,
    order: Column | None = None,
) -> DataFrame:
    """A micro-batch with the engine's columns (see `parse`).

    Args:
        declared: the columns of the source's schema, then those that its mode adds.
        added: what `metadata` adds.
        newest: when each row came to be.
        order: which of two changes came later.
    """
    from pyspark.sql import functions as F

    from microbatch.sources.input import NEWEST

    names = [f"`{name}`" for name in declared.fieldNames()]
    rows = batch.select(
        *names,
        *[column.alias(name) for name, column in added.items()],
        "_unparsed",
        "_problem",
        *([newest.alias(NEWEST)] if newest is not None else []),
    )
    told = [order.alias(ORDER)] if order is not None else []
    return rows.withColumn("_row", F.struct(*names, *added, *told))


def sampled(spark: SparkSession, schema: StructType, blocks: Sequence[pa.RecordBatch], most: int) -> DataFrame:
    """At most so many rows of what was read."""
    import pyarrow as pa

    if not blocks:
        return empty.frame(spark, schema)
    return spark.createDataFrame(pa.Table.from_batches(blocks).slice(0, most), schema)


def of_letters(texts: DataFrame, declared: StructType, shape: StructType) -> DataFrame:
    """The rows of dead letters: a whole row as JSON, or the text of each column of one that did not fit."""
    from pyspark.sql import functions as F

    from microbatch.sources import letters

    whole = letters.of_json(texts.where("kind = 'row'"), shape)
    told = texts.where("kind = 'parse'").select("_letter", F.from_json("value", "map<string,string>").alias("_texts"))
    written = told.select("_letter", *[F.col("_texts")[f.name].alias(f.name) for f in declared])
    made = _typed_again(written, declared).withColumn("_row", F.col("_letter"))
    return whole.unionByName(made, allowMissingColumns=True)


def _typed_again(written: DataFrame, declared: StructType) -> DataFrame:
    """Text through the one conversion there is; letters are few, so a Python function over them costs nothing."""
    from pyspark.sql.types import StringType, StructField, StructType

    from microbatch.sources.postgres.values import UNPARSED

    fields = [*declared, StructField("_letter", StringType()), *UNPARSED]
    schema = StructType(fields)

    def convert(blocks: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from microbatch.sources.postgres.values import converted

        for block in blocks:
            texts: Sequence[pa.Array] = [block.column(name) for name in declared.fieldNames()]
            yield converted(texts, schema, [block.column("_letter")])

    return written.mapInArrow(convert, schema)
