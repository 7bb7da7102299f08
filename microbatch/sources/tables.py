"""Tables of the suite as streams: an appended one row for row, an upserted or replaced one as its changes.

Guarantee:
    At least once, in the order of the table's versions; the same rows for the same two offsets. A table that was
    overwritten, made anew, or vacuumed before it was read is an error of Delta's, never a gap.

Source:
    Delta Lake manual, "Delta table as a source" and "Change data feed".
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from microbatch.errors import StateChanged
from microbatch.places import Place, lines_of
from microbatch.sink.tables import ORDER, Table, appended, merged

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

OP, CHANGED_AT = "_op", "_changed_at"
CHANGE_COLUMNS = f"{OP} STRING, {CHANGED_AT} TIMESTAMP"
FED = ("_change_type", "_commit_version", "_commit_timestamp")  # what the change data feed adds
CHANGES = "_mb_changes"  # beside a group: how many of its rows changed
LITERAL_GROUPS = 1_000  # above it a list of literals costs more to plan than the files it saves


@dataclass(frozen=True)
class TableInput:
    """A table of the suite, as one flow reads it.

    Attributes:
        changes: read the change data feed (`_op`, `_changed_at`) instead of the appended rows.
        recompute_by: where given, a batch is every row of the groups that changed, as of its end version.
        starting_version: where a new checkpoint begins; None: with all the table holds.
    """

    unit: ClassVar[str] = "version"

    table: Table
    checkpoint: Place
    changes: bool
    recompute_by: tuple[str, ...] = ()
    starting_version: int | None = None

    def fetch(self) -> None:
        """The table is there already."""

    def pending(self) -> int:
        """Versions with rows that no batch has taken in yet, counted without a JVM; 0 where there is no table.

        Raises:
            StateChanged: the table is gone, or is not the one that was read so far.
        """
        versions, rest = self._ahead()
        return sum(self._files(number) > 0 for number in versions) + int(rest)

    def pending_rows(self) -> int | None:
        """Rows, or changes of rows, in those versions, as their commits count them; None where one does not say.

        Raises:
            StateChanged: as for `pending`.
        """
        versions, rest = self._ahead()
        counts = [self._rows(number) for number in versions if self._files(number) > 0]
        return None if rest or None in counts else sum(count or 0 for count in counts)

    def _ahead(self) -> tuple[range, bool]:
        """The versions behind the last one that was read, and whether of that one a part is left."""
        offset = last_offset(self.checkpoint)
        if not self.table.exists():
            if offset is not None:
                raise self._changed("is gone")
            return range(0), False
        opened = self.table.open()
        version, taken, rest = opened.version(), (self.starting_version or 0) - 1, False
        if offset is not None:
            end = json.loads(offset)
            if opened.metadata().id != end["reservoirId"]:
                raise self._changed("was made anew since it was read")
            taken = end["reservoirVersion"] - (1 if end["index"] < 0 else 0)
            if version < taken:
                raise self._changed(f"is at version {version}, and version {taken} was read already")
            if end["index"] >= 0:
                # The first version a stream reads is the whole table: its files are not those of one commit.
                rest = end["isStartingVersion"] or end["index"] + 1 < self._files(taken)
        return range(taken + 1, version + 1), rest

    def _rows(self, version: int) -> int | None:
        """The rows a version added, or with `changes` those it inserted, updated or deleted."""
        actions = self.table.actions(version)
        if actions is None:
            return None
        metrics: dict[str, Any] = next(
            (a["commitInfo"].get("operationMetrics", {}) for a in actions if "commitInfo" in a), {}
        )
        counted = merged(metrics)
        return sum(counted.values()) if counted else appended(metrics)

    def _files(self, version: int) -> int:
        """The data files of a version that a reader sees, as its indexes count them: none where rows were only moved.

        Where the log of the version is gone or out of reach, more than any index.
        """
        actions = self.table.actions(version)
        if actions is None:
            return sys.maxsize
        files = [action.get("add") or action.get("remove") or {} for action in actions]
        return sum("cdc" in action for action in actions) or sum(file.get("dataChange", False) for file in files)

    def _changed(self, what: str) -> StateChanged:
        remedy = "put it back, or read it anew with `--accept checkpoint` (an Append doubles what it holds)"
        return StateChanged(self.checkpoint.name, f"table {self.table.name}, which it reads, {what}", remedy)

    def stream(self, spark: SparkSession) -> DataFrame:
        """New rows of an appended table; both images of each change of any other."""
        reader = spark.readStream.format("delta")
        if self.changes or self.recompute_by:
            reader = reader.option("readChangeFeed", "true")
        if self.starting_version is not None:
            reader = reader.option("startingVersion", self.starting_version)
        return reader.load(self.table.path)

    def rows(self, batch: DataFrame) -> DataFrame:
        """The rows of a micro-batch with `_row`; a change is one row: its image after it, or before a delete."""
        from pyspark.sql import functions as F

        order = []
        if self.changes:
            order = [F.col("_commit_version").alias(ORDER)]
            batch = batch.where("_change_type <> 'update_preimage'").withColumns(
                {
                    OP: F.when(F.col("_change_type") == "update_postimage", "update").otherwise(F.col("_change_type")),
                    CHANGED_AT: F.col("_commit_timestamp"),
                }
            )
        fed = FED if self.changes else ()
        own = [f"`{name}`" for name in batch.columns if name not in fed]
        nothing = F.lit(None).cast("string")
        rows = batch.withColumns({"_row": F.struct(*own, *order), "_unparsed": nothing, "_problem": nothing})
        return rows.drop(*fed)

    def newest_at(self) -> int | None:
        """When the table was last written to, in ms since 1970, or None."""
        return next((int(commit["timestamp"]) for commit in self.table.commits(1)), None)

    def of_letters(self, texts: DataFrame, shape: StructType) -> DataFrame:
        """See `Input`: the row of the table as JSON."""
        from microbatch.sources import letters

        return letters.of_json(texts, shape)

    def groups(self, batch: DataFrame) -> DataFrame:
        """The groups in either image of each change, nulls included: `recompute_by` and `CHANGES`, the rows changed.

        An update has two images and is one change.
        """
        from pyspark.sql import functions as F

        change = F.count(F.when(F.col("_change_type") != "update_preimage", 1))
        return batch.groupBy(*[f"`{name}`" for name in self.recompute_by]).agg(change.alias(CHANGES))

    def of_groups(self, spark: SparkSession, groups: DataFrame, count: int, end: str) -> DataFrame:
        """Every row of the groups as of the batch's end version, with `_row`.

        Args:
            groups: pinned; one row a group.
            count: how many; few enough become literals, so that files outside them are not read.
            end: the batch's end offset, as Spark wrote it.
        """
        from pyspark.sql import functions as F

        from microbatch.sink import exact

        version = end_version(end)
        rows = spark.read.format("delta").option("versionAsOf", version).load(self.table.path)
        if len(self.recompute_by) == 1 and count <= LITERAL_GROUPS:
            name = f"`{self.recompute_by[0]}`"
            kind = groups.schema[self.recompute_by[0]].dataType
            values = [value for (value,) in groups.select(exact.carried(F.col(name), kind)).collect()]
            present = F.col(name).isin([exact.brought(value, kind) for value in values if value is not None])
            rows = rows.where(present | F.col(name).isNull() if None in values else present)
        else:
            aliased = F.broadcast(groups.select(*self.recompute_by)).alias("g")
            rows = rows.alias("r").join(
                aliased, [F.col(f"r.`{n}`").eqNullSafe(F.col(f"g.`{n}`")) for n in self.recompute_by], "left_semi"
            )
        return rows.withColumn("_row", F.struct("*"))


def end_version(offset: str) -> int:
    """The last version of a table that a batch with this end offset has taken in, wholly or in part."""
    end = json.loads(offset)
    # An index below 0 stands before the first file of the version: all versions below it are taken in.
    whole = end["index"] < 0 and not end.get("isStartingVersion")
    return int(end["reservoirVersion"]) - (1 if whole else 0)


def last_offset(checkpoint: Place) -> str | None:
    """The newest offset of a checkpoint's one source, as Spark wrote it, or None where no batch was planned yet."""
    planned = numbered(checkpoint / "offsets")
    return offsets(checkpoint, planned[-1]) if planned else None


def offsets(checkpoint: Place, batch_id: int) -> str:
    """The end offset of a batch; empty for the one before the first.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    if batch_id < 0:
        return ""
    file = checkpoint / "offsets" / str(batch_id)
    lines = lines_of(file.read_text("utf-8")) if file.exists() else []
    if len(lines) < 3 or not lines[0].startswith("v"):
        raise ValueError(f"checkpoint damaged: {file}")
    return lines[2]


def numbered(folder: Place) -> list[int]:
    """The batch ids that have a file in a folder of a checkpoint, in order."""
    return sorted(int(file.name) for file in folder.iterdir() if file.name.isdigit()) if folder.is_dir() else []
