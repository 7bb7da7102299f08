"""A Delta table that something outside the suite writes, as a stream of the rows that are added to it.

Guarantee:
    Exactly once for each row that is added, in the order of the table's versions. What is not an addition stops the flow before
    a batch runs: rows that were updated, deleted or overwritten, a table that was made anew or put back to an older version,
    files that were vacuumed before they were read. OPTIMIZE and other commits that only move rows are passed over. A column
    that the schema does not name does what `unknown_fields` says; one that the table does not have, or has with a type whose
    values do not all fit, is a mistake in the declaration.
What the server must allow:
    Reading the table's folder.
What it costs the server:
    Its log is read once a run; nothing is written there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from microbatch import empty
from microbatch.errors import ConfigError, Problem, SourceUnavailable, StateChanged, shortened
from microbatch.places import is_seen, place
from microbatch.sink.tables import Table
from microbatch.sources.tables import TableInput, last_offset

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

PLACE = "_file"


@dataclass(frozen=True)
class Elsewhere(Table):
    """A table at a path of its own; `warehouse` is that path, `name` what messages call it."""

    @cached_property
    def path(self) -> str:
        return self.warehouse


@dataclass(frozen=True)
class Delta(TableInput):
    """An external table, as one flow reads it.

    Attributes:
        source, flow: their names, for messages.
        schema: DDL of the rows.
        metadata: adds `_file`.
        unknown_fields: what a column of the table that the schema does not name does: ignore, rescue or fail.
        max_files: of a batch.
    """

    source: str = field(kw_only=True)
    flow: str = field(kw_only=True)
    schema: str = field(kw_only=True)
    metadata: bool = field(kw_only=True)
    unknown_fields: str = field(kw_only=True)
    max_files: int | None = field(kw_only=True)

    def pending(self) -> int:
        """Versions with rows that no batch has taken in yet, counted without a JVM.

        Raises:
            SourceUnavailable: there is no table.
            StateChanged: it is not the one that was read, or rows of it were changed or are gone.
        """
        from deltalake.exceptions import DeltaError

        offset = last_offset(self.checkpoint)
        try:
            if offset is None and not self.table.exists():
                raise SourceUnavailable(self.source, f"there is no Delta table at {self.table.path}")
            count = super().pending()
        except DeltaError as cause:
            why = shortened(str(cause).splitlines()[0], 300)
            raise self._changed(f"has a log that cannot be read ({why})") from cause
        if count:
            self._refuse_changes(offset)
        return count

    def _refuse_changes(self, offset: str | None) -> None:
        """Stop at a version, among those to be read one by one, that did more than add rows, or whose rows are gone."""
        if not is_seen(self.table.path):
            return  # Spark says it, a JVM later
        first = self.starting_version
        if offset is not None:
            end = json.loads(offset)
            first = end["reservoirVersion"] + (1 if end["isStartingVersion"] else 0)
        if first is None:
            return  # the whole table as it is now
        for version in range(first, (self.table.version() or 0) + 1):
            self._refuse_change(version)

    def _refuse_change(self, version: int) -> None:
        actions = self._actions(version)
        operation = next((each["commitInfo"].get("operation") for each in actions if "commitInfo" in each), "unknown")
        if any(each.get("remove", {}).get("dataChange") for each in actions):
            raise self._changed(f"had rows changed or deleted by version {version} ({operation})")
        files = [unquote(each["add"]["path"]) for each in actions if each.get("add", {}).get("dataChange")]
        for file in files:
            if not (place(self.table.path) / file).exists():
                raise self._changed(f"lost {file} of version {version} before it was read; was it vacuumed?")

    def _actions(self, version: int) -> list[dict[str, Any]]:
        actions = self.table.actions(version)
        if actions is None:
            raise self._changed(f"has no log of version {version} any more, which was not read yet")
        return actions

    def _changed(self, what: str) -> StateChanged:
        remedy = "put it back, or read it anew with `--accept checkpoint` (an Append doubles what it holds)"
        return StateChanged(self.flow, f"table {self.table.name}, which it reads, {what}", remedy)

    def stream(self, spark: SparkSession) -> DataFrame:
        """The rows that were added."""
        from pyspark.sql import functions as F

        self._refuse_misfit(spark)
        reader = spark.readStream.format("delta")
        if self.starting_version is not None:
            reader = reader.option("startingVersion", self.starting_version)
        if self.max_files:
            reader = reader.option("maxFilesPerTrigger", self.max_files)
        rows = reader.load(self.table.path)
        # Delta's stream knows no `_metadata`; the name must be asked for here, where the file is read.
        return rows.withColumn(PLACE, F.input_file_name()) if self.metadata else rows

    def rows(self, batch: DataFrame) -> DataFrame:
        """The rows of a micro-batch as the schema has them, with the engine's columns (see `parse`)."""
        from pyspark.sql import functions as F

        from microbatch.sources import columnar, parse

        declared = empty.declared(batch.sparkSession, self.schema)
        own = [name for name in batch.columns if name != PLACE]
        unknown = columnar.unknown(declared, [batch.select(*[f"`{name}`" for name in own]).schema])
        named = [] if self.unknown_fields == "ignore" else [each.name for each in unknown]
        places = [PLACE] if self.metadata else []
        if self.metadata and PLACE not in batch.columns:
            batch = batch.withColumn(PLACE, F.lit(None).cast("string"))  # rows that no stream brought: a preview's
        typed = [F.col(f"`{each.name}`").cast(each.dataType).alias(each.name) for each in declared]
        rows = batch.select(*typed, *[f"`{name}`" for name in (*named, *places)])
        return parse.typed_rows(rows, declared, named, self.unknown_fields)

    def _refuse_misfit(self, spark: SparkSession) -> None:
        from microbatch.sources import columnar

        declared = empty.declared(spark, self.schema)
        stored = spark.read.format("delta").load(self.table.path).schema
        if what := _missing(declared, stored) or columnar.misfit(declared, stored):
            raise ConfigError(Problem(f"source {self.source}", f"table {self.table.name}: {what}"))


def _missing(declared: StructType, stored: StructType) -> str | None:
    there = {name.lower() for name in stored.fieldNames()}
    missing = [name for name in declared.fieldNames() if name.lower() not in there]
    return f"it has no column {', '.join(missing)}; there are {', '.join(stored.fieldNames())}" if missing else None
