"""Files as a stream: json, csv, parquet, text, avro, orc.

Spark's file source decides which files belong to a batch and remembers them in the checkpoint. The engine then reads those
files itself, so that a file that vanished, changed or cannot be read is seen: Spark's own read passes a vanished file in
silence and lets one broken file stop the flow for ever.

Guarantee:
    At least once, and the same files for the same batch, whatever happened in between.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from microbatch.errors import SourceUnavailable, StateChanged
from microbatch.sources.listing import File, Record, files_below, is_local, logged, refuse_changed

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class FilesConf(Protocol):
    """What `conf` says of a source of kind `files`."""

    @property
    def format(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def options(self) -> Mapping[str, str]: ...
    @property
    def max_files_per_batch(self) -> int | None: ...
    @property
    def max_bytes_per_batch(self) -> int | None: ...
    @property
    def metadata(self) -> bool: ...
    @property
    def unknown_fields(self) -> str: ...


@dataclass(frozen=True)
class Files:
    """One source of kind `files`, as one flow reads it.

    Attributes:
        checkpoint: the flow's own; it holds Spark's log of files and the record of their sizes.
    """

    name: str
    flow: str
    schema: str
    conf: FilesConf
    checkpoint: Path

    def pending(self) -> int:
        """Files that no batch has taken in yet, counted without a JVM.

        Raises:
            SourceUnavailable: the folder is not there.
            StateChanged: a file that was read is no longer what was read.
        """
        if not is_local(self.conf.path):
            return 1
        now, seen = files_below(self.name, self.conf.path), Record(self.checkpoint).all()
        refuse_changed(self.flow, seen, now)
        return len(now.keys() - seen.keys())

    def stream(self, spark: SparkSession) -> DataFrame:
        """The stream that says which files are new; its rows are not read."""
        reader = (
            spark.readStream.format("text")
            # Whatever the modification times are: by default a file 7 days older than the newest is never read.
            .option("maxFileAge", "36500d")
            .option("recursiveFileLookup", self.conf.options.get("recursiveFileLookup", "true"))
        )
        for option in ("pathGlobFilter",):
            if option in self.conf.options:
                reader = reader.option(option, self.conf.options[option])
        if self.conf.max_files_per_batch:
            reader = reader.option("maxFilesPerTrigger", self.conf.max_files_per_batch)
        if self.conf.max_bytes_per_batch:
            reader = reader.option("maxBytesPerTrigger", self.conf.max_bytes_per_batch)
        return reader.load(self.conf.path)

    def files(self, batch_id: int, after: int, upto: int) -> list[File]:
        """The files of a batch as they were when it first read them; recorded before anything else happens to them.

        Raises:
            StateChanged: one vanished or changed between the first try of this batch and now.
        """
        paths = logged(self.checkpoint, after, upto)
        if not is_local(self.conf.path):
            return [File(path, 0, 0) for path in paths]
        missing = [path for path in paths if not os.path.exists(path)]
        if missing:
            raise StateChanged(
                self.flow,
                f"vanished before it was read: {', '.join(missing[:5])}",
                "put it back and run again, or go on without it with `--accept files`",
            )
        now = {path: _seen(path) for path in paths}
        record = Record(self.checkpoint)
        refuse_changed(self.flow, record.of(batch_id), now)
        record.keep(batch_id, list(now.values()))
        return list(now.values())

    def rows(self, spark: SparkSession, files: list[File]) -> DataFrame:
        """The rows of these files: the schema's columns and `_row`, `_unparsed`, `_problem` (see `parse`)."""
        return read(spark, self.schema, self.conf, [file.path for file in files])

    def broken(self, spark: SparkSession, files: list[File]) -> dict[str, str]:
        """Which of these files cannot be read, and why: each is read by itself. Only called after a read failed."""
        found = {}
        for file in files:
            try:
                self.rows(spark, [file]).write.format("noop").mode("overwrite").save()
            except Exception as cause:  # whatever a reader raises over a broken file is what the letter says
                reason = unreadable(cause)
                if reason is None:
                    raise
                found[file.path] = reason
        return found

    def suspicious(self, files: list[File]) -> dict[str, str]:
        """CSV files with an odd number of quotes: an unclosed one swallows the rows behind it into a field.

        Counted in plain Python at the speed of the disk; files that are not local are left to the parser.
        """
        quote = self.conf.options.get("quote", '"')
        if self.conf.format != "csv" or not is_local(self.conf.path) or not quote:
            return {}
        escape = self.conf.options.get("escape", "\\")
        odd = [file.path for file in files if _count(file.path, quote, escape) % 2]
        return dict.fromkeys(odd, f"an odd number of quotes ({quote}): one is not closed")


def read(spark: SparkSession, schema: str, conf: FilesConf, paths: list[str]) -> DataFrame:
    """Read files of one format whole, nothing pruned; see `parse` for the engine's columns."""
    from pyspark.sql import functions as F

    from microbatch.sources import parse

    declared = spark.createDataFrame([], schema).schema
    if not paths:
        rescued = ["_rescued STRING"] if conf.unknown_fields == "rescue" else []
        places = ["_file STRING", "_file_modified TIMESTAMP"] if conf.metadata else []
        engine = ["_row STRING", "_unparsed STRING", "_problem STRING"]
        return spark.createDataFrame([], ", ".join([schema, *rescued, *places, *engine]))
    metadata = [
        F.col("_metadata.file_path").alias("_file"),
        F.col("_metadata.file_modification_time").alias("_file_modified"),
    ]
    added = metadata if conf.metadata else []
    options = dict(conf.options)
    if conf.format == "json":
        whole = options.pop("multiLine", "false").lower() == "true"
        lines = _reader(spark, "text", {"wholetext": str(whole).lower()}).load(paths).select("value", *added)
        if whole:
            element = F.from_json("value", "array<string>")
            is_array = F.ltrim("value").startswith("[")
            lines = lines.withColumn(
                "value", F.explode(F.when(is_array & element.isNotNull(), element).otherwise(F.array("value")))
            )
        return parse.json_lines(lines, declared, conf.unknown_fields, options)
    if conf.format == "csv":
        # multiLine: a quoted line break cuts a row in two, and the first half looks good; enforceSchema: a swapped header
        # goes unseen; the corrupt column: a surplus field is dropped unseen without it.
        strict = {
            "header": "true",
            "multiLine": "true",
            **options,
            "mode": "PERMISSIVE",
            "columnNameOfCorruptRecord": "_corrupt",
        }
        strict["enforceSchema"] = "false" if strict["header"].lower() == "true" else "true"
        wide = parse.widened(declared).add("_corrupt", "string")
        rows = _reader(spark, "csv", strict).schema(wide).load(paths)
        return parse.csv_rows(rows.select("*", *added), declared)
    unknown: list[str] = []
    shape = declared
    if conf.unknown_fields != "ignore":
        found = _reader(spark, conf.format, {**options, "mergeSchema": "true"}).load(paths).schema
        unknown = [field.name for field in found if field.name not in declared.fieldNames()]
        for name in unknown:
            shape = shape.add(found[name])
    reader = _reader(spark, conf.format, options)
    if conf.format != "text":
        reader = reader.schema(shape)
    rows = reader.load(paths)
    if conf.format == "text":
        rows = rows.select(F.col("value").alias(declared.fieldNames()[0]), *added)
    return parse.typed_rows(
        rows if conf.format == "text" else rows.select("*", *added), declared, unknown, conf.unknown_fields
    )


def unreadable(cause: BaseException) -> str | None:
    """Why a file could not be read, in a line, or None where the error is about something else."""
    text = str(cause)
    marks = (
        "FAILED_READ_FILE",
        "CANNOT_READ_FILE_FOOTER",
        "INVALID_HEADER",
        "CSV header does not conform",
        "is not a Parquet file",
    )
    if not any(mark in text for mark in marks):
        return None
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("at ")]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return (causes or lines)[-1][:300]


def _reader(spark: SparkSession, kind: str, options: Mapping[str, Any]) -> Any:
    # The paths are those Spark listed: a `*` or `[` in one is a letter, not a pattern.
    return spark.read.format(kind).options(**{"__globPaths__": "false", **options})


def _seen(path: str) -> File:
    stat = os.stat(path)
    return File(path, stat.st_size, stat.st_mtime_ns // 1_000_000)


def _count(path: str, quote: str, escape: str) -> int:
    opened: Callable[..., Any] = gzip.open if path.endswith(".gz") else open
    mark, escaped = quote.encode(), (escape + quote).encode() if escape != quote else None
    count, tail = 0, b""
    try:
        with opened(path, "rb") as stream:
            while block := stream.read(1 << 20):
                count += block.count(mark) - ((tail + block).count(escaped) if escaped else 0)
                tail = block[-1:]
    except (OSError, EOFError):
        return 0  # what cannot be decompressed is found, and named, by the read itself
    return count


__all__ = ["Files", "FilesConf", "SourceUnavailable", "read", "unreadable"]
