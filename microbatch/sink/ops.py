"""What the engine keeps about its own work, in schema `ops` of the warehouse: written by delta-rs, with no Spark job.

Each append carries the same key as the target's commit (query id and batch id), so that a batch that is run again after a
crash finds its rows already there. delta-rs records the key but does not refuse a second one: it is looked up first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeVar

from microbatch.outcome import Outcome
from microbatch.places import reached, storage_options
from microbatch.sink.tables import Table

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import CommitProperties, DeltaTable

Result = TypeVar("Result")

# What the query id of a ledger row begins with that is no batch of a checkpoint.
FOLDED = "folded:"  # stands for a flow's old batches, with their sums; its `batch_id` is how many they are
REPLAY = "replay:"
BESIDE = (REPLAY, "backfill:", FOLDED)
# The tables that hold what a target cannot show (see `remembered`), the column of each that says since when, and how long.
MEMORY, REMEMBERED = {"deletes": "deleted_at", "unchanged": "kept_at"}, timedelta(days=30)

# Columns of each table, as pairs of name and Arrow type. A timestamp is in UTC, to the microsecond.
_LONGS = [
    *(f"rows_{what}" for what in ("read", "unparsed", "transformed", "written", "quarantined", "superseded")),
    *("rows_inserted", "rows_updated", "rows_deleted", "target_version"),
]
TABLES: dict[str, dict[str, str]] = {
    "batches": {
        **dict.fromkeys(("job", "flow", "run_id", "query_id"), "string"),
        "batch_id": "long",
        "started_at": "time",
        "duration_ms": "long",
        **dict.fromkeys(("source_start", "source_end"), "string"),
        **dict.fromkeys(_LONGS, "long"),
        "newest_at": "time",
        "suite_version": "string",
    },
    "expectations": {
        **dict.fromkeys(("job", "flow", "run_id", "query_id"), "string"),
        "batch_id": "long",
        **dict.fromkeys(("expectation_id", "expectation", "column", "severity"), "string"),
        "success": "bool",
        **dict.fromkeys(("evaluated", "unexpected"), "long"),
        **dict.fromkeys(("observed", "suite_version"), "string"),
    },
    "quarantine": {
        **dict.fromkeys(("id", "job", "flow", "query_id"), "string"),
        "batch_id": "long",
        "run_id": "string",
        "quarantined_at": "time",
        "kind": "string",
        "reasons": "reasons",
        **dict.fromkeys(("payload", "status"), "string"),
        "attempts": "long",
    },
    "deletes": {
        **dict.fromkeys(("job", "flow", "query_id"), "string"),
        "batch_id": "long",
        **dict.fromkeys(("table", "key", "version"), "string"),
        "deleted_at": "time",
    },
    "unchanged": {
        **dict.fromkeys(("job", "flow", "query_id"), "string"),
        "batch_id": "long",
        **dict.fromkeys(("table", "key", "payload"), "string"),
        "kept_at": "time",
    },
    "runs": {
        **dict.fromkeys(("job", "run_id"), "string"),
        **dict.fromkeys(("started_at", "finished_at"), "time"),
        "status": "string",
        "exit_code": "long",
        "error": "string",
        "sla_met": "bool",
        **dict.fromkeys(("suite_version", "accepted"), "string"),
    },
    "lineage": {
        **dict.fromkeys(("job", "table", "column", "type", "flow", "how"), "string"),
        **dict.fromkeys(("inputs", "sources"), "strings"),
        "suite_version": "string",
    },
    "alerts": {
        **dict.fromkeys(("job", "alert", "severity", "status"), "string"),
        "value": "number",
        **dict.fromkeys(("since", "changed_at"), "time"),
        **dict.fromkeys(("run_id", "undelivered"), "string"),
    },
}

TOGETHER = 100  # commits to a table that is appended to, after which its small files are put together


def schema(table: str) -> pa.Schema:
    """The Arrow schema of one of the tables."""
    import pyarrow as pa

    reason = pa.struct([(name, pa.string()) for name in ("expectation", "column", "severity", "message")])
    types = {
        "string": pa.string(),
        "long": pa.int64(),
        "number": pa.float64(),
        "bool": pa.bool_(),
        "time": pa.timestamp("us", tz="UTC"),
        "reasons": pa.list_(reason),
        "strings": pa.list_(pa.string()),
    }
    return pa.schema([(name, types[kind]) for name, kind in TABLES[table].items()])


def rows(
    warehouse: str, table: str, filters: Sequence[tuple[str, str, Any]] = (), only: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The rows of a table as dicts; none where the table is not there yet.

    Args:
        filters: column, operator (`=`, `in`, `>`…) and value, all of which must hold: `[("job", "=", "daily_sales")]`.
        only: the columns wanted; empty for all.
    """
    return asked(warehouse, table, ", ".join(f'"{name}"' for name in only) or "*", filters)


def asked(
    warehouse: str, table: str, columns: str, filters: Sequence[tuple[str, str, Any]] = (), then: str = ""
) -> list[dict[str, Any]]:
    """What a SELECT of such columns gives, of the rows that `rows` would give; `then` is SQL behind the condition."""
    stored = Table(warehouse, f"ops.{table}")
    if not stored.exists():
        return []
    from deltalake import QueryBuilder

    # By SQL: after an update by delta-rs, pyarrow's own filters fail on the log's statistics (string against string_view).
    condition = " AND ".join(f'"{column}" {operator} {literal(value)}' for column, operator, value in filters) or "true"
    statement = f"SELECT {columns} FROM t WHERE {condition} {then}"  # noqa: S608
    return dicts(QueryBuilder().register("t", stored.open()).execute(statement).read_all())


def outcome(warehouse: str, query_id: str, batch_id: int) -> Outcome | None:
    """The outcome of a batch as the ledger has it, without results and letters; None where it has none."""
    for row in rows(warehouse, "batches", [("query_id", "=", query_id), ("batch_id", "=", batch_id)]):
        times = {name: row[name] and row[name].isoformat() for name in ("started_at", "newest_at")}
        return Outcome(**{**row, **times})
    return None


def dicts(found: Any) -> list[dict[str, Any]]:
    """The rows of what delta-rs's query engine answered.

    Not through pyarrow: it looks for pandas, 0.4 s of imports, and is no quicker value by value (30,000 rows of the ledger:
    0.34 s against 0.52).
    """
    names = found.column_names
    values = [found.column(name).to_pylist() for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def literal(value: Any) -> str:
    """A value as delta-rs reads it in SQL: text, a whole number, a time, or several in parentheses."""
    if isinstance(value, list | tuple):
        return f"({', '.join(literal(each) for each in value)})"
    if isinstance(value, datetime):
        return f"'{value.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%S.%fZ}'"  # a call here is of another type than the column
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


def record(warehouse: str, outcome: Outcome) -> None:
    """Write the ledger row of a batch and the results of its expectations, once."""
    ledger = {**asdict(outcome), "started_at": _time(outcome.started_at), "newest_at": _time(outcome.newest_at)}
    key = {name: ledger[name] for name in ("job", "flow", "run_id", "query_id", "batch_id", "suite_version")}
    app_id = outcome.query_id
    # The ledger comes last: a batch that has its ledger row has all the rest.
    append(
        warehouse, "expectations", [{**key, **asdict(result)} for result in outcome.results], (app_id, outcome.batch_id)
    )
    append(warehouse, "batches", [ledger], (app_id, outcome.batch_id))


def append(
    warehouse: str, table: str, records: Iterable[Mapping[str, Any]], key: tuple[str, int] | None = None
) -> None:
    """Append records to a table; nothing where there are none, or where `key` (transaction id, number) is already there."""
    import pyarrow as pa

    shape = schema(table)
    wanted = [{name: each.get(name) for name in shape.names} for each in records]
    if not wanted:
        return
    write(Table(warehouse, f"ops.{table}"), pa.Table.from_pylist(wanted, schema=shape), key)


def write(stored: Table, data: pa.Table, key: tuple[str, int] | None = None, predicate: str | None = None) -> None:
    """One commit by delta-rs: an append, or with `predicate` the replacement of the rows it is true for.

    Args:
        key: transaction id and number; nothing is done where the table has it already.
    """
    from deltalake import CommitProperties, Transaction, write_deltalake

    keyed = CommitProperties(app_transactions=[Transaction(*key)] if key else None)

    def commit(opened: DeltaTable) -> None:
        last = opened.transaction_version(key[0]) if key else None
        if key and last is not None and last >= key[1]:
            return
        if predicate:
            write_deltalake(opened, data, mode="overwrite", predicate=predicate, commit_properties=keyed)
            return
        write_deltalake(opened, data, mode="append", commit_properties=keyed)
        if opened.version() % TOGETHER == 0:
            _together(opened)

    with reached(stored.path):
        if stored.exists() or not _made(stored, data, keyed):
            change(stored, commit)


def _made(stored: Table, data: pa.Table, keyed: CommitProperties) -> bool:
    """Make the table with these rows; False, and nothing done, where somebody made it meanwhile."""
    from deltalake import write_deltalake
    from deltalake.exceptions import DeltaError

    # A log entry a batch stays small for years; one checkpoint of it in fifty commits is enough.
    properties, options = {"delta.checkpointInterval": "50"}, storage_options(stored.path)
    try:
        write_deltalake(
            stored.path,
            data,
            mode="error",
            configuration=properties,
            commit_properties=keyed,
            storage_options=options,
        )
    except DeltaError:
        if not stored.exists():
            raise
        return False
    return True


def forget(warehouse: str, name: str, table: str) -> None:
    """Drop all that `deletes` or `unchanged` remembers of a table."""
    stored = Table(warehouse, f"ops.{name}")
    if stored.exists():
        change(stored, lambda opened: opened.delete(f'"table" = {literal(table)}'))


def change(stored: Table, what: Callable[[DeltaTable], Result]) -> Result:
    """Change a table; on its new state once more where another writer changed files of it in between.

    Not even an append stands beside a change to delta-rs: to it, it has read the whole table.

    Raises:
        CommitFailedError: that happened thirty times in turn.
    """
    from deltalake.exceptions import CommitFailedError
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

    again = Retrying(
        retry=retry_if_exception_type(CommitFailedError),
        stop=stop_after_attempt(30),
        wait=wait_random(0, 0.2),
        reraise=True,
    )
    return again(lambda: what(stored.open()))


def _together(opened: DeltaTable) -> None:
    """Put small files together: a run that goes on for days reads the table's state with each batch, and holds all of it."""
    from deltalake.exceptions import CommitFailedError

    try:
        opened.optimize.compact()
    except CommitFailedError:  # somebody changes rows just now: next time will do
        return


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
