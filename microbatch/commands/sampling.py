"""The rows that `preview` looks at: a bounded part of what a flow would read next, taken without streaming."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from microbatch.commands.plan import many
from microbatch.config import FilesConf, LoadedJob, Suite
from microbatch.errors import SourceUnavailable
from microbatch.job import Flow
from microbatch.places import is_seen
from microbatch.runner.inputs import input_of
from microbatch.sink.tables import Table
from microbatch.sources.files import Files, unreadable
from microbatch.sources.listing import File, files_below
from microbatch.sources.record import Record
from microbatch.sources.rest import Rest
from microbatch.sources.tables import TableInput, end_version, last_offset

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FILES = 5  # files that are opened
ROWS = 10_000  # rows that are judged: enough to meet a fault that one row in a thousand has
GROUPS = 3  # groups that a recomputing flow makes again


@dataclass(frozen=True)
class Sample:
    """Rows to look at, pinned.

    Attributes:
        rows: as a batch has them, with `_row` and, where they come from a source, `_unparsed` and `_problem`.
        of: where they are from, in words.
        complete: whether they are the whole of the next batch: then what is said of the table holds.
        broken: files that cannot be read, and why.
        groups: for a recomputing flow, the groups made again.
    """

    rows: DataFrame
    of: str
    complete: bool = False
    broken: Mapping[str, str] = field(default_factory=dict)
    groups: DataFrame | None = None


def sample(spark: SparkSession, suite: Suite, job: LoadedJob, flow: Flow) -> Sample:
    """Rows of what is pending; where nothing is, of what is there.

    Raises:
        SourceUnavailable: the source did not answer, or its folder is not there.
    """
    input_ = input_of(suite, job, flow)
    if isinstance(input_, TableInput):
        return _of_table(spark, input_)
    if not isinstance(input_, Files) or isinstance(input_, Rest):
        rows = input_.sample(spark, ROWS).localCheckpoint(eager=True)
        return Sample(rows, f"at most {ROWS:,} rows that would come next")
    conf = job.conf.sources[input_.name]
    return _of_files(spark, input_, conf.max_files_per_batch if isinstance(conf, FilesConf) else None)


def _of_files(spark: SparkSession, input_: Files, batch: int | None) -> Sample:
    """The first files that are pending, else the newest there are."""
    if not is_seen(input_.conf.path):
        found = [
            File(path, 0, 0) for path in spark.read.format("binaryFile").load(input_.conf.path).inputFiles()[:FILES]
        ]
        return _read(spark, input_, found, "the first files there are", complete=False)
    there = files_below(input_.name, input_.conf.path)
    pending = sorted((there[path] for path in there.keys() - Record(input_.checkpoint).all()), key=_age)
    chosen = pending[: min(FILES, batch or FILES)] or sorted(there.values(), key=_age)[-FILES:]
    of = (
        f"{many(len(chosen), 'file')} of {len(pending):,} pending"
        if pending
        else "the newest files; nothing is pending"
    )
    return _read(
        spark, input_, chosen, of, complete=bool(pending) and len(chosen) == min(len(pending), batch or len(pending))
    )


def _age(file: File) -> tuple[int, str]:
    return file.modified_ms, file.path


def _read(spark: SparkSession, input_: Files, files: Sequence[File], of: str, *, complete: bool) -> Sample:
    broken = input_.suspicious(spark, list(files))
    for _ in range(2):  # a file that cannot be read is found by the first pass, and put aside
        good = [file for file in files if file.path not in broken]
        try:
            rows = input_.rows(spark, good).limit(ROWS).localCheckpoint(eager=True)
            return Sample(rows, of, complete and rows.count() < ROWS, broken)
        except Exception as cause:
            found = input_.broken(spark, good) if unreadable(cause) else {}
            if not found:
                raise
            broken = {**broken, **found}
    raise SourceUnavailable(input_.name, "its files change while they are read; try again")


def _of_table(spark: SparkSession, input_: TableInput) -> Sample:
    offset, pending = last_offset(input_.checkpoint), input_.pending()
    version = input_.table.open().version()
    since = end_version(offset) if offset and pending else None
    of = (
        f"the newest rows of {input_.table.name}; "
        + (many(pending, "version") if pending else "nothing is")
        + " pending"
    )
    if input_.recompute_by:
        seeds = _newest(spark, input_.table, since).limit(ROWS).select(*[f"`{name}`" for name in input_.recompute_by])
        groups = seeds.distinct().limit(GROUPS).localCheckpoint(eager=True)
        end = json.dumps({"reservoirVersion": version, "index": 0})
        rows = input_.of_groups(spark, groups, GROUPS, end)
        return Sample(rows, f"every row of {GROUPS} groups of {input_.table.name}", groups=groups)
    if input_.changes and since is not None and since < version:
        feed = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", since + 1)
        rows, of = feed.load(input_.table.path), f"the pending changes of {input_.table.name}"
    else:
        rows = _newest(spark, input_.table, since)
        rows = _as_changes(rows, input_.table, version) if input_.changes else rows
    return Sample(input_.rows(rows.limit(ROWS)).localCheckpoint(eager=True), of)


def _newest(spark: SparkSession, table: Table, since: int | None) -> DataFrame:
    """The rows of the table's newest files, of those that came after version `since` where there are such."""
    import pyarrow as pa

    opened = table.open()
    whole = spark.read.format("delta").load(table.path)
    if opened.metadata().partition_columns:  # a part of its columns is in the names of its folders
        return whole
    added = pa.table(opened.get_add_actions(flatten=True)).select(["path", "modification_time"]).to_pylist()
    seen_ms = next((c["timestamp"] for c in table.commits() if c["version"] == since), 0)
    files = sorted(((_ms(each["modification_time"]), each["path"]) for each in added), reverse=True)
    chosen = [file for file in files if file[0] > seen_ms][:FILES] or files[:FILES]
    paths = [f"{table.path}/{path}" for _, path in chosen]
    return spark.read.schema(whole.schema).option("__globPaths__", "false").parquet(*paths) if paths else whole


def _ms(time: Any) -> int:
    return int(time.timestamp() * 1000) if isinstance(time, datetime) else int(time)


def _as_changes(rows: DataFrame, table: Table, version: int) -> DataFrame:
    """Rows as the change feed gives those that were there when a stream began: each is an insert."""
    from pyspark.sql import functions as F

    at = datetime.fromtimestamp(next(table.commits(1))["timestamp"] / 1000, timezone.utc)
    made = {"_change_type": "insert", "_commit_version": version, "_commit_timestamp": at}
    return rows.withColumns({name: F.lit(value) for name, value in made.items()})
