"""`microbatch maintain`: few and full files, no file that nobody needs any more, and a ledger that does not grow for ever.

Safe beside a running job: compaction changes no row, files are only removed that neither a reader, a replay nor a rewind within
the days that are kept can ask for, and each step is one commit that a second attempt makes again or finds made.

Source:
    Delta Lake manual, "Optimizations" and "Remove files no longer referenced by a Delta table".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from microbatch import session
from microbatch.commands.render import columns
from microbatch.config import LoadedJob, Suite
from microbatch.errors import ConfigError, Problem, StateChanged
from microbatch.retry import classify, with_back_off
from microbatch.runner.inputs import checkpoint_of
from microbatch.runner.rewinding import unfinished
from microbatch.sink import retention
from microbatch.sink.tables import Table
from microbatch.sources.tables import end_version, numbered, offsets

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SMALL = 32 * 1024 * 1024  # bytes of a file that is better one with others
MANY_SMALL = 8  # so few are left as they are: rewriting them costs more than reading them
LEAST_DAYS = 7  # what Delta itself holds safe for readers that are under way
LEDGER_DAYS = 60  # twice as long as a table's log is kept


@dataclass(frozen=True)
class Files:
    """The files of a table's newest version."""

    count: int
    bytes: int
    small: int


def execute(suite: Suite, job: LoadedJob, keep_days: int, ledger_days: int) -> int:
    """Maintain the tables a job writes and what the engine keeps about it, and print what that saved.

    Args:
        keep_days: files that a table no longer needs stay so long: as far back as it can be read, or the job rewound.
        ledger_days: older batches are folded into one row a flow, older runs, results and closed letters go.

    Raises:
        ConfigError: fewer days than are safe.
        StateChanged: a rewind of the job is not done.
    """
    for name, days, least in (("--keep-days", keep_days, LEAST_DAYS), ("--ledger-days", ledger_days, LEDGER_DAYS)):
        if days < least:
            raise ConfigError(Problem(name, f"{days} is not safe beside readers and replays; at least {least}"))
    if unfinished(suite.environment.storage["checkpoints"], [job.name]):
        raise StateChanged(job.name, "a rewind was begun and is not done", f"finish it: microbatch rewind {job.name}")
    warehouse, now = suite.environment.storage["warehouse"], datetime.now(timezone.utc)
    lines = []
    spark: SparkSession | None = None
    for flow in job.flows:
        table = Table(warehouse, flow.writes.table)
        if not table.exists():
            continue
        before, keep = files_of(table), keep_hours(suite, table, timedelta(days=keep_days), now)
        wants = before.small >= MANY_SMALL or bool(flow.writes.cluster_by and before.small > 1)
        idle = not wants and not _has_old(table, keep, now)
        removed = 0
        if not idle:
            spark = spark or session.start(f"microbatch maintain {job.name}", suite.spark_conf)
            removed = _maintain(spark, job, table, wants, keep)
        after = files_of(table)
        lines.append([table.name, before.count, after.count, _mb(before.bytes), _mb(after.bytes), removed])
    print(columns(("table", "files", "now", "MB", "now MB", "old files removed"), lines))
    gone = retention.forget(warehouse, job.name, now - timedelta(days=ledger_days), now)
    retention.tidy(warehouse, timedelta(days=keep_days))
    told = ", ".join(f"{count:,} of ops.{name}" for name, count in gone.items() if count)
    print(f"rows that are gone or folded: {told or 'none'}")
    return 0


def files_of(table: Table) -> Files:
    """How many files a table has now, and how many of them are small."""
    sizes = table.open().get_add_actions(flatten=True).column("size_bytes").to_pylist()
    return Files(len(sizes), sum(sizes), sum(size < SMALL for size in sizes))


def keep_hours(suite: Suite, table: Table, keep: timedelta, now: datetime) -> int:
    """How old a file that the table no longer needs must be to go: never one that a reader has still to read."""
    times = {commit["version"]: commit["timestamp"] for commit in table.commits()}
    for read in _read_upto(suite, table):
        unread = [ms for version, ms in times.items() if version > read]
        if unread:
            since = now - datetime.fromtimestamp(min(unread) / 1000, timezone.utc)
            keep = max(keep, since + timedelta(days=1))
    return int(keep / timedelta(hours=1))


def _read_upto(suite: Suite, table: Table) -> Iterator[int]:
    for job in suite.jobs.values():
        for flow in job.flows:
            if flow.reads == table.name:
                # A batch that is planned and not done, a stuck one say, still reads what lies behind the one before it.
                checkpoint = checkpoint_of(suite, job, flow)
                if done := numbered(checkpoint / "commits") or numbered(checkpoint / "offsets")[:1]:
                    yield end_version(offsets(checkpoint, done[-1]))


def _has_old(table: Table, keep: int, now: datetime) -> bool:
    """Whether anything was removed from the table longer ago than that."""
    until_ms = (now - timedelta(hours=keep)).timestamp() * 1000
    rewrites = ("MERGE", "DELETE", "UPDATE", "OPTIMIZE", "RESTORE", "WRITE")
    return any(c["timestamp"] < until_ms and c.get("operation") in rewrites and c["version"] for c in table.commits())


def _maintain(spark: SparkSession, job: LoadedJob, table: Table, compact: bool, keep: int) -> int:
    """Compact, cluster and vacuum one table; how many files went."""
    from delta.tables import DeltaTable

    retry = job.conf.retry
    stored = DeltaTable.forPath(spark, table.path)

    def optimize() -> None:
        try:
            stored.optimize().executeCompaction()
        except Exception as cause:  # a job that commits meanwhile may win: then it is tried again, as a batch is
            raise classify(cause, table.name, None) from cause

    if compact:
        with_back_off(optimize, retry.attempts, retry.first_wait_s, retry.max_wait_s, lambda line: None)
    stored.vacuum(keep)
    ended = next((c for c in table.commits(3) if c.get("operation") == "VACUUM END"), {})
    return int((ended.get("operationMetrics") or {}).get("numDeletedFiles", 0))


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f}"
