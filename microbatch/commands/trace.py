"""`microbatch trace`: where one row is (each table, quarantine, deleted, superseded), and which batch brought it. No JVM."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from microbatch.commands.keys import Names, parsed, same, typed
from microbatch.commands.origins import Commit, Origins, Row
from microbatch.config import LoadedJob, Suite
from microbatch.config.names import hint
from microbatch.errors import ConfigError, Problem
from microbatch.job import Append, Flow, Source
from microbatch.outcome import HIDDEN, Outcome
from microbatch.runner import columns
from microbatch.runner.inputs import checkpoint_of
from microbatch.sink import ops
from microbatch.sink.tables import Table
from microbatch.sources.record import Record

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROWS = 10  # rows shown of a table, letters shown of a flow: a key that chooses more is no key
VERSIONS_BACK = 5  # earlier values shown of a row
MOST_FILES = 3


def execute(suite: Suite, job: LoadedJob, keys: Sequence[str]) -> int:
    """Print where the rows are that have these values; 0, also where there are none.

    Args:
        keys: each `COLUMN=VALUE`; all must hold.

    Raises:
        ConfigError: one is not of that form, names a column that no table and no source of the job has, or gives a value
            that the column's type does not take.
    """
    wanted = parsed(keys)
    _refuse_unknown(suite, job, wanted)
    named = Names(columns.known(suite, job))
    told = [f"{job.name}: {', '.join(f'{name} = {value}' for name, value in wanted.items())}"]
    told += [line for flow in job.flows for line in _table(suite, job, flow, wanted, named)]
    print("\n".join([*told, *_letters(suite, job, wanted, named)]))
    return 0


def _refuse_unknown(suite: Suite, job: LoadedJob, wanted: Mapping[str, str]) -> None:
    known: dict[str, None] = {}
    for flow in job.flows:
        table = Table(suite.environment.storage["warehouse"], flow.writes.table)
        if table.exists():
            known |= dict.fromkeys(_schema(table).names)
        if isinstance(flow.reads, Source):
            known |= dict.fromkeys(part.split()[0].strip("`") for part in flow.reads.schema.split(",") if part.split())
    unknown = [name for name in wanted if name not in known]
    if unknown:
        here = f"no table or source of {job.name} has a column"
        raise ConfigError(*[Problem("--key", f"{here} {name}{hint(name, known)}") for name in unknown])


def _schema(table: Table) -> pa.Schema:
    import pyarrow as pa

    return pa.schema(table.open().schema().to_arrow())


def _table(suite: Suite, job: LoadedJob, flow: Flow, asked: Mapping[str, str], named: Names) -> Iterator[str]:
    """What a flow's target has of the row."""
    target = flow.writes
    stored = Table(suite.environment.storage["warehouse"], target.table)
    if not stored.exists():
        yield f"\n{target.table} (flow {flow.name})"
        yield "  is not there yet"
        return
    schema = _schema(stored)
    wanted = named.at(target.table, asked, schema.names)
    called = [f"{theirs} is {ours}" for theirs, ours in zip(wanted, asked, strict=True) if theirs != ours]
    yield f"\n{target.table} (flow {flow.name}{'; ' if called else ''}{', '.join(called)})"
    missing = [name for name in wanted if name not in schema.names]
    if missing:
        later = (
            "" if named.known else "; what it is called here is known once a run has kept the lineage of its columns"
        )
        yield f"  has no column {', '.join(missing)}{later}"
        return
    values = {name: typed(name, value, schema.field(name).type) for name, value in wanted.items()}
    origins = Origins(stored, values)
    keys = [] if isinstance(target, Append) else [*getattr(target, "keys", ())]
    rows, count = origins.now(keys, MOST_ROWS, VERSIONS_BACK)
    for row in rows:
        yield from _row(suite, job, flow, row)
    if count > len(rows):
        yield f"  and {count - len(rows):,} more rows; give more of the key"
    if not rows:
        yield "  is not there"
        if gone := origins.last(keys, VERSIONS_BACK):
            yield from _gone(suite, job, flow, *gone)
    yield from _others(suite, flow, wanted, count)
    yield from _deletions(suite, job, flow, wanted)


def _others(suite: Suite, flow: Flow, wanted: Mapping[str, str], count: int) -> Iterator[str]:
    """Rows of the input that have the key and are not in the target, because a newer one of them is."""
    newest_by = getattr(flow.writes, "newest_by", ())
    if not newest_by or not isinstance(flow.reads, str) or not set(wanted) <= {*getattr(flow.writes, "keys", ())}:
        return
    read = Table(suite.environment.storage["warehouse"], flow.reads)
    if count and read.exists() and set(wanted) <= set((schema := _schema(read)).names):
        try:
            values = {name: typed(name, value, schema.field(name).type) for name, value in wanted.items()}
        except ConfigError:  # a narrower type than the target's: none of its rows has the key
            return
        others = Origins(read, values).now((), 0, 0)[1] - count
        if others > 0:
            has = "1 other row of {} has" if others == 1 else f"{others:,} other rows of {{}} have"
            yield f"  {has.format(flow.reads)} this key; the newest {', '.join(newest_by)} won"


def _row(suite: Suite, job: LoadedJob, flow: Flow, row: Row) -> Iterator[str]:
    yield f"  {_values(row.values, job)}"
    yield f"    brought by {_by(suite, job, flow, row.by)}"
    yield from _before(suite, job, flow, row)


def _before(suite: Suite, job: LoadedJob, flow: Flow, row: Row) -> Iterator[str]:
    while row.before:
        row, newer = row.before, row
        changed = {name: value for name, value in row.values.items() if value != newer.values.get(name)}
        batch = f"batch {newer.by.outcome.batch_id}" if newer.by and newer.by.outcome else "a later commit"
        yield f"    superseded by {batch}: {_values(changed or row.values, job)}"
        yield f"      brought by {_by(suite, job, flow, row.by)}"


def _gone(suite: Suite, job: LoadedJob, flow: Flow, row: Row, by: Commit) -> Iterator[str]:
    yield f"  was there: {_values(row.values, job)}"
    yield f"    brought by {_by(suite, job, flow, row.by)}"
    yield f"    gone since {_by(suite, job, flow, by)}"


def _by(suite: Suite, job: LoadedJob, flow: Flow, commit: Commit | None) -> str:
    """A commit in words: its batch, when, and what the batch read."""
    if commit is None:
        return "a commit that the table's log no longer has"
    when = f"{commit.at:%Y-%m-%d %H:%M:%S} UTC, version {commit.version}"
    if commit.outcome is None:
        return f"{commit.operation or 'a commit'} of {when}, which is none of the engine's batches"
    outcome = commit.outcome
    return f"batch {outcome.batch_id} of run {outcome.run_id}, {when}; {_read(suite, job, flow, outcome)}"


def _read(suite: Suite, job: LoadedJob, flow: Flow, outcome: Outcome) -> str:
    """What a batch read, as far as checkpoint and ledger know it."""
    how, colon, _ = outcome.query_id.partition(":")
    if colon:
        return f"a {how}"
    files = list(Record(checkpoint_of(suite, job, flow)).of(outcome.batch_id))
    if files:
        more = f" and {len(files) - MOST_FILES:,} more" if len(files) > MOST_FILES else ""
        return f"it read {', '.join(files[:MOST_FILES])}{more}"
    if isinstance(flow.reads, str):
        return f"it read {flow.reads} {_versions(outcome)}"
    return f"it read {flow.reads.name} up to {outcome.source_end or 'an offset that is not known'}"


def _versions(outcome: Outcome) -> str:
    try:
        begin = json.loads(outcome.source_start)["reservoirVersion"] if outcome.source_start else 0
        end = json.loads(outcome.source_end)
        last = end["reservoirVersion"] - (1 if end["index"] < 0 else 0)
    except (ValueError, KeyError, TypeError):
        return "up to an offset that is not known"
    return f"at version {last}" if begin >= last else f"from version {begin} to {last}"


def _deletions(suite: Suite, job: LoadedJob, flow: Flow, wanted: Mapping[str, str]) -> Iterator[str]:
    """Deletions of the key that are remembered, so that an older version does not bring it back."""
    filters = [("job", "=", job.name), ("flow", "=", flow.name)]
    for each in ops.rows(suite.environment.storage["warehouse"], "deletes", filters):
        key = json.loads(each["key"])
        known = {name: value for name, value in wanted.items() if name in key}
        if known and all(same(key[name], value) for name, value in known.items()):
            version = ", ".join(f"{name} {value}" for name, value in json.loads(each["version"]).items())
            yield f"  deleted by batch {each['batch_id']}, {each['deleted_at']:%Y-%m-%d %H:%M:%S} UTC, as of {version}"


def _letters(suite: Suite, job: LoadedJob, asked: Mapping[str, str], named: Names) -> Iterator[str]:
    """The letters that hold the row, with their reasons. A letter has the names of its flow's input."""
    reads = {flow.name: flow.reads.name if isinstance(flow.reads, Source) else flow.reads for flow in job.flows}
    found, unread = [], 0
    for letter in ops.rows(suite.environment.storage["warehouse"], "quarantine", [("job", "=", job.name)]):
        wanted = named.at(reads.get(letter["flow"], ""), asked)
        held = _held(letter, wanted) or _held(letter, asked)
        unread += held is None and letter["status"] == "open"
        found += [letter] if held else []
    yield f"\nquarantine: {len(found):,} letter{'' if len(found) == 1 else 's'}"
    for letter in sorted(found, key=lambda each: each["quarantined_at"], reverse=True)[:MOST_ROWS]:
        reasons = "; ".join(reason["message"] or reason["expectation"] for reason in letter["reasons"] or ())
        when = f"{letter['quarantined_at']:%Y-%m-%d %H:%M:%S} UTC"
        yield f"  {letter['id'][:12]}  {letter['status']}, flow {letter['flow']}, batch {letter['batch_id']}, {when}"
        yield f"    {reasons}"
        yield f"    more: microbatch quarantine show {job.name} {letter['id'][:12]}"
    if len(found) > MOST_ROWS:
        yield f"  and {len(found) - MOST_ROWS:,} more"
    if unread:
        yield f"  {unread:,} open letter{'' if unread == 1 else 's'} (files, batches, texts, hidden values) may hold it too"


def _held(letter: Mapping[str, Any], wanted: Mapping[str, str]) -> bool | None:
    """Whether a letter holds a row with these values; None where it does not say."""
    if letter["kind"] in ("file", "batch"):
        return None
    try:
        row = json.loads(letter["payload"] or "", parse_float=Decimal)
    except ValueError:
        row = None
    if not isinstance(row, dict):  # a text that did not parse, whose columns nobody knows
        return None if all(value in (letter["payload"] or "") for value in wanted.values()) else False
    if any(name not in row for name in wanted):
        return False
    if any(row[name] == HIDDEN for name in wanted):
        return None
    return all(same(row[name], value) for name, value in wanted.items())


def _values(row: Mapping[str, Any], job: LoadedJob) -> str:
    return ", ".join(f"{name} {HIDDEN if job.masks(name) else _shown(value)}" for name, value in row.items())


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return (
        str(value)
        if isinstance(value, int | float | Decimal | date)
        else json.dumps(value, default=str, ensure_ascii=False)
    )
