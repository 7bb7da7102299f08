"""Files as a stream: json, csv, parquet, text, avro, orc.

Spark's file source decides which files belong to a batch and remembers them in the checkpoint. The engine then reads those
files itself, so that a file that vanished, changed or cannot be read is seen: Spark's own read passes a vanished file in
silence and lets one broken file stop the flow for ever.

Guarantee:
    At least once, and the same files for the same batch, whatever happened in between.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import itertools
import os
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from microbatch import empty
from microbatch.errors import SourceUnavailable, StateChanged, shortened
from microbatch.places import Place, is_seen, open_reader, place
from microbatch.sources.listing import (
    File,
    files_below,
    logged,
    look_at_each,
    refuse_changed,
    refuse_links,
)
from microbatch.sources.record import Record

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType


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
        accept: take changed and vanished files as they are now; somebody said so.
    """

    unit: ClassVar[str] = "file"

    name: str
    flow: str
    schema: str
    conf: FilesConf
    checkpoint: Place
    accept: bool = False

    def fetch(self) -> None:
        """Files are there already."""

    def pending(self) -> int:
        """Files that no batch has taken in yet, counted without a JVM.

        Raises:
            SourceUnavailable: the folder is not there.
            StateChanged: a file that was read is no longer what was read.
        """
        return 1 if not is_seen(self.conf.path) else len(self._new())

    def pending_bytes(self) -> int | None:
        """The size of those files [bytes]; None where nobody sees them from here.

        Raises:
            MicrobatchError: as for `pending`.
        """
        return sum(file.size for file in self._new()) if is_seen(self.conf.path) else None

    def _new(self) -> list[File]:
        record = Record(self.checkpoint)
        if self.accept:
            record.refresh()
        now, seen = files_below(self.name, self.conf.path, _options(self.conf).get("pathglobfilter")), record.all()
        refuse_changed(self.flow, seen, now)
        return [now[path] for path in now.keys() - seen.keys()]

    def stream(self, spark: SparkSession) -> DataFrame:
        """The stream that says which files are new; its rows are not read."""
        reader = (
            spark.readStream.format("text")
            # Whatever the modification times are: by default a file 7 days older than the newest is never read.
            .option("maxFileAge", "36500d")
            .option("recursiveFileLookup", "true")
        )
        if pattern := _options(self.conf).get("pathglobfilter"):
            reader = reader.option("pathGlobFilter", pattern)
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
        if not is_seen(self.conf.path):
            return [File(path, 0, 0) for path in paths]
        looked = look_at_each(paths)
        missing = [path for path, file in looked.items() if file is None]
        if missing and not self.accept:
            raise StateChanged(
                self.flow,
                f"vanished before it was read: {', '.join(missing[:5])}",
                "put it back and run again, or go on without it with `--accept files`",
            )
        now = {path: file for path, file in looked.items() if file is not None}
        refuse_links(self.name, self.conf.path, list(now))
        record = Record(self.checkpoint)
        refuse_changed(self.flow, record.of(batch_id), now)
        record.keep(batch_id, list(now.values()))
        return list(now.values())

    def of_letters(self, texts: DataFrame, shape: StructType) -> DataFrame:
        """See `Input`: a line of JSON or CSV as it was, a row of any other format as JSON."""
        from microbatch.sources import letters, parse

        declared, options = empty.declared(texts.sparkSession, self.schema), _options(self.conf)
        if self.conf.format == "json":
            options.pop("multiline", None)
            return parse.json_lines(texts.drop("kind"), declared, self.conf.unknown_fields, options)
        if self.conf.format == "csv":
            return letters.of_csv(texts, declared, options)
        return letters.of_json(texts, declared)

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

    def suspicious(self, spark: SparkSession, files: list[File]) -> dict[str, str]:
        """Files that a reader would take, and give rows that look good and are not; why, by path.

        CSV with an odd number of quotes: an unclosed one swallows the rows behind it into a field. Counted in plain Python at
        the speed of the disk or of the object store; files out of its reach are left to the parser. ORC with a column of
        another type than the schema says.
        """
        if self.conf.format == "orc":
            return self._other_types(spark, files)
        options = _options(self.conf)
        quote, plain = options.get("quote", '"'), options.get("encoding", options.get("charset", "utf-8")).lower()
        if (
            self.conf.format != "csv"
            or not is_seen(self.conf.path)
            or not quote
            or plain.startswith(("utf-16", "utf-32"))
        ):
            return {}
        odd = [file.path for file in files if _quotes(file.path, quote, options["escape"]) % 2]
        return dict.fromkeys(odd, f"an odd number of quotes ({quote}): one is not closed")

    def _other_types(self, spark: SparkSession, files: list[File]) -> dict[str, str]:
        from microbatch.sources import columnar

        declared, options = empty.declared(spark, self.schema), _options(self.conf)

        def misfits(paths: list[str]) -> list[str]:
            schemas = columnar.schemas(spark, "orc", options, paths)
            return [found for schema in schemas if (found := columnar.misfit(declared, schema))]

        if not misfits([file.path for file in files]):
            return {}
        return {file.path: found[0] for file in files if (found := misfits([file.path]))}


def read(spark: SparkSession, schema: str, conf: FilesConf, paths: list[str]) -> DataFrame:
    """Read files of one format whole, nothing pruned; see `parse` for the engine's columns."""
    from microbatch.sources import reading

    return reading.read(spark, schema, conf, _options(conf), paths)


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
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    started = [number for number, line in enumerate(lines) if line.startswith("Caused by: ")]
    told = itertools.takewhile(lambda line: not line.startswith(("at ", "...")), lines[started[-1] if started else 0 :])
    return shortened(" ".join(told).removeprefix("Caused by: "), 300)


def _options(conf: FilesConf) -> dict[str, str]:
    """The options, names in lower case as Spark compares them; a quote in a CSV field is doubled (RFC 4180) unless said."""
    given = {name.lower(): value for name, value in conf.options.items()}
    return {"escape": given.get("quote", '"'), **given} if conf.format == "csv" else given


def _quotes(path: str, quote: str, escape: str) -> int:
    """How many quotes a file holds, escaped ones left out; 0 for a file that cannot be read: the read itself will say why."""
    packed: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open}
    name = os.path.splitext(path)[1].lower()
    if name in (".zst", ".lz4", ".snappy", ".deflate", ".zlib"):
        return 0  # what plain Python cannot unpack is left to the parser
    opened = packed.get(name, contextlib.nullcontext)
    mark, lead = quote.encode(), escape.encode()
    apart = escape not in (quote, "")
    count, rest = 0, b""
    try:
        with open_reader(place(path)) as plain, opened(plain) as stream:
            while block := stream.read(1 << 20):
                block = rest + block
                if apart and lead in block:
                    kept = len(block) - (len(block) - len(block.rstrip(lead))) % 2
                    block, rest = block[:kept], block[kept:]
                    block = re.sub(re.escape(lead) + b".", b"", block, flags=re.DOTALL)
                else:
                    rest = b""
                count += block.count(mark)
    except (OSError, EOFError, zlib.error):
        return 0
    return count


__all__ = ["Files", "FilesConf", "SourceUnavailable", "read", "unreadable"]
