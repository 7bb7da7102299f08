"""Which commit brought a row of a table: found by going back through the table's versions, without a JVM.

A commit may carry rows over that it did not change (a MERGE and an OPTIMIZE rewrite whole files): so from the version that
added a row's file one looks at the version before it, and where the row is there already, goes on from its file there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from microbatch.outcome import Outcome
from microbatch.places import is_local
from microbatch.sink.tables import Table, outcome_of

FILE = "__filename"  # pyarrow's name for the file a row was read from
LOOKED_THROUGH = 20  # newest commits in which a row that is gone is looked for: each is a read of the table
DOUBLE_DIGITS = 15  # digits of a decimal that a double holds whole
Values = dict[str, Any]


@dataclass(frozen=True)
class Commit:
    """A version of a table: when it was made, by what, and where the engine made it the outcome of its batch."""

    version: int
    at: datetime
    operation: str
    outcome: Outcome | None


@dataclass(frozen=True)
class Row:
    """A row and its origin.

    Attributes:
        by: the commit that brought these values; None where it is no longer kept.
        before: the row with the same keys that it took the place of; None where there was none, or it is not kept.
    """

    values: Values
    by: Commit | None
    before: Row | None = None


class Origins:
    """The rows of one table that some values choose, now and in earlier versions.

    Args:
        wanted: column -> value, of the column's Arrow type; all must hold.
    """

    def __init__(self, table: Table, wanted: Mapping[str, Any]) -> None:
        self.table, self.wanted = table, dict(wanted)
        self._read: dict[int, list[Values]] = {}

    @cached_property
    def commits(self) -> list[Commit]:
        """The commits that the log still has, oldest first."""
        found = [
            Commit(
                commit["version"],
                datetime.fromtimestamp(commit["timestamp"] / 1000, timezone.utc),
                str(commit.get("operation", "")),
                outcome_of(commit),
            )
            for commit in self.table.commits()
        ]
        return sorted(found, key=lambda commit: commit.version)

    def now(self, keys: Sequence[str], most: int, versions_back: int) -> tuple[list[Row], int]:
        """At most so many rows as they are now, each with its origin; and how many there are in all.

        Args:
            keys: what tells the table's rows apart; empty: earlier values of a row cannot be told from other rows.
            versions_back: how many earlier values of a row are looked up.
        """
        version = self.commits[-1].version
        rows = self._at(version)
        return [self._row(row, version, keys, versions_back) for row in rows[:most]], len(rows)

    def last(self, keys: Sequence[str], versions_back: int) -> tuple[Row, Commit] | None:
        """Of rows that are gone, the one that went last, and the commit it went with; None where none is kept."""
        for commit in self.commits[: -LOOKED_THROUGH - 1 : -1]:
            outcome = commit.outcome
            changed = outcome is None or outcome.rows_deleted or outcome.rows_updated
            if commit.version and changed and (rows := self._at(commit.version - 1)):
                return self._row(rows[0], commit.version - 1, keys, versions_back), commit
        return None

    def _row(self, row: Values, version: int, keys: Sequence[str], back: int) -> Row:
        by = self._origin(row, version)
        if by is None or by.version == 0 or not keys or not back:
            return Row(_plain(row), by)
        same = [each for each in self._at(by.version - 1) if all(each.get(key) == row[key] for key in keys)]
        before = self._row(same[0], by.version - 1, keys, back - 1) if len(same) == 1 else None
        return Row(_plain(row), by, before)

    def _origin(self, row: Values, version: int) -> Commit | None:
        while True:
            by = self._added(row[FILE], version)
            if by is None or by.version == 0 or by.operation == "WRITE":
                return by
            values = _plain(row)
            earlier = next((each for each in self._at(by.version - 1) if _plain(each) == values), None)
            if earlier is None:
                return by
            row, version = earlier, by.version - 1

    def _added(self, file: str, version: int) -> Commit | None:
        """The commit that added a file: the first one after the file was written."""
        written = self._files(version).get(unquote(file))
        if written is None:
            return None
        at = datetime.fromtimestamp(written / 1000, timezone.utc)
        return next((commit for commit in self.commits if commit.at >= at and commit.version <= version), None)

    def _files(self, version: int) -> dict[str, int]:
        import pyarrow as pa

        added = pa.table(self.table.open(version).get_add_actions(flatten=True))
        return {
            unquote(path): modified
            for path, modified in zip(
                added.column("path").to_pylist(), added.column("modification_time").to_pylist(), strict=True
            )
        }

    def _at(self, version: int) -> list[Values]:
        """The wanted rows of a version, each with its file; none where its files or its log are no longer kept."""
        if version not in self._read:
            self._read[version] = self._scan(version)
        return self._read[version]

    def _scan(self, version: int) -> list[Values]:
        import pyarrow as pa
        from deltalake.exceptions import DeltaError
        from pyarrow import compute as pc
        from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

        try:
            # Through delta-rs's own file system, which calls back into Python, a process now and then crashes at its end.
            own = SubTreeFileSystem(self.table.path, LocalFileSystem()) if is_local(self.table.path) else None
            data = self.table.open(version).to_pyarrow_dataset(filesystem=own)
            names = data.schema.names
            if not set(self.wanted) <= set(names):
                return []
            condition = pc.scalar(True)
            for name, value in self.wanted.items():
                kind, column = data.schema.field(name).type, pc.field(name)
                if pa.types.is_decimal(kind) and kind.precision > DOUBLE_DIGITS:
                    # The bounds of a file are doubles in Delta's log: of a long decimal they lie beside it, and by them the
                    # file would be passed over. They do not count for what is cast.
                    kind = pa.decimal256(76, kind.scale)
                    column = column.cast(kind)
                condition = condition & (column == pa.scalar(value, kind))
            return data.to_table(filter=condition, columns=[*names, FILE]).to_pylist()
        except (DeltaError, OSError):  # vacuumed, or cut off by the retention of the log
            if self.commits and version == self.commits[-1].version:
                raise
            return []


def _plain(row: Values) -> Values:
    return {name: value for name, value in row.items() if name != FILE}
