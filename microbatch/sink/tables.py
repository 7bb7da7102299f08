"""Tables of the warehouse as plain Python sees them: where they are, what version they have, what their commits say.

deltalake (delta-rs) reads a log in a few milliseconds without a JVM.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from microbatch.outcome import ONLY_THE_COMMIT_KNOWS, Outcome
from microbatch.places import is_local, is_seen, lines_of, place, reached, storage_options

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from pyspark.sql.types import StructType

ORDER = "_mb_order"  # BIGINT in `_row` of an input that tells changes: of two changes of one key the larger came later
HARMLESS = (
    "OPTIMIZE",
    "VACUUM START",
    "VACUUM END",
    "SET TBLPROPERTIES",
    "CREATE TABLE",
    "CREATE OR REPLACE TABLE",
    "ADD COLUMNS",
)  # operations that change no row


@dataclass(frozen=True)
class Table:
    """A Delta table of the warehouse: `silver.sales` lies at `<warehouse>/silver/sales`."""

    warehouse: str
    name: str

    @cached_property
    def path(self) -> str:
        return os.path.join(self.warehouse, *self.name.split("."))

    def exists(self) -> bool:
        """Whether there is a table at the path."""
        if is_local(self.path):
            log = os.path.join(self.path, "_delta_log")
            return os.path.isdir(log) and any(name.endswith((".json", ".parquet")) for name in os.listdir(log))
        from deltalake import DeltaTable

        with reached(self.path):
            return DeltaTable.is_deltatable(self.path, storage_options=storage_options(self.path))

    def open(self, version: int | None = None) -> DeltaTable:
        """The table at a version; None: the newest.

        Raises:
            deltalake.exceptions.TableNotFoundError: there is none.
        """
        from deltalake import DeltaTable

        with reached(self.path):
            return DeltaTable(self.path, version=version, storage_options=storage_options(self.path))

    def actions(self, version: int) -> list[dict[str, Any]] | None:
        """What the log says of a version; None where it is gone or out of reach."""
        if not is_seen(self.path):
            return None
        try:
            text = (place(self.path) / "_delta_log" / f"{version:020d}.json").read_text("utf-8")
        except FileNotFoundError:
            return None
        return [json.loads(line) for line in lines_of(text)]

    def version(self) -> int | None:
        """The newest version, or None where there is no table."""
        return self.open().version() if self.exists() else None

    def ensure(self, properties: Mapping[str, str]) -> None:
        """Give an existing table these properties, by a commit of its own where it lacks one of them."""
        if self.exists():
            opened = self.open()
            there = opened.metadata().configuration
            if any(there.get(name) != value for name, value in properties.items()):
                opened.alter.set_table_properties(dict(properties))

    def last_batch(self, app_id: str) -> int | None:
        """The last batch that was committed under this transaction id, or None."""
        return self.open().transaction_version(app_id) if self.exists() else None

    def commits(self, newest: int | None = None, *, undone: bool = False) -> Iterator[dict[str, Any]]:
        """What each commit says of itself, the newest first; those that a rewind undid only where `undone` asks for them."""
        after, before = 0, 0  # the versions between these two are undone
        for commit in self.open().history(newest) if self.exists() else ():
            if not after < commit["version"] < before:
                yield commit
                if mark := rewound_by(commit):
                    after, before = mark.to_version, commit["version"]
            elif undone:
                yield commit


@dataclass(frozen=True)
class Rewound:
    """What the commit of a rewind carries.

    Attributes:
        rewind: the rewind's id.
        to_version: the version the table is back at; -1: it is empty.
        query_id: the new id of the query that writes the table; None where it has none yet.
    """

    rewind: str
    to_version: int
    query_id: str | None

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))


def rewound_by(commit: Mapping[str, Any]) -> Rewound | None:
    """The mark of the rewind that made a commit, or None where none did."""
    text = commit.get("userMetadata") or ""
    if not text.startswith('{"rewind":'):
        return None
    try:
        return Rewound(**json.loads(text))
    except (ValueError, TypeError):
        return None


def columns_of(opened: DeltaTable) -> StructType:
    """The columns of a table at the version it was opened at: a Delta log holds Spark's own types."""
    from pyspark.sql.types import StructType

    return StructType.fromJson(json.loads(opened.schema().to_json()))


def appended(metrics: Mapping[str, Any]) -> int | None:
    """The rows a commit appended, by Spark's metrics or delta-rs's; None where they do not say."""
    count = metrics.get("numOutputRows", metrics.get("num_added_rows"))
    return None if count is None else int(count)


def merged(metrics: Mapping[str, Any]) -> dict[str, int]:
    """The rows a MERGE `inserted`, `updated` and `deleted`, by Spark's metrics or delta-rs's; without what they do not say."""
    names = {
        what: (f"numTargetRows{what.title()}", f"num_target_rows_{what}") for what in ("inserted", "updated", "deleted")
    }
    return {what: int(metrics[name]) for what, either in names.items() for name in either if name in metrics}


def outcome_of(commit: dict[str, Any]) -> Outcome | None:
    """The outcome a commit carries, with the counts that only the commit knows, or None where it is not the engine's.

    Rows written are those the commit inserted, updated or deleted by itself: a MERGE says what it did in its own metrics.
    """
    text = commit.get("userMetadata")
    if not text:
        return None
    try:
        outcome = Outcome.from_json(text)
    except ValueError:
        return None
    metrics = commit.get("operationMetrics", {})
    counted = merged(metrics)
    inserted, updated = counted.get("inserted", appended(metrics) or 0), counted.get("updated", 0)
    # A MERGE counts what it removes; an overwrite does not, and was told before how many rows it takes the place of.
    deleted = counted.get("deleted", outcome.rows_deleted)
    written = inserted + updated + deleted if outcome.rows_written == ONLY_THE_COMMIT_KNOWS else outcome.rows_written
    return replace(
        outcome,
        rows_written=written,
        rows_inserted=inserted,
        rows_updated=updated,
        rows_deleted=deleted,
        rows_superseded=outcome.rows_transformed - outcome.rows_quarantined - written,
        target_version=commit["version"],
    )
