"""What conf may say of a Delta table that something outside the suite writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from microbatch.config.kinds.source import SourceConf, at_key
from microbatch.config.names import NAME_RULE, is_name
from microbatch.config.values import Count, CountOrZero, Location, Text


class DeltaConf(SourceConf):
    """A Delta table that something else writes.

    Attributes:
        path: absolute local path or URI.
        table: `schema.name`, below the warehouse of this environment; the one or the other.
        starting_version: of the table, where a new checkpoint begins; None: with all it holds.
        max_files_per_batch: None: as many as Delta says, 1000.
    """

    kind: Literal["delta"]
    path: Location | None = None
    table: Text | None = None
    starting_version: CountOrZero | None = None
    max_files_per_batch: Count | None = None

    @field_validator("table")
    @classmethod
    def _table(cls, value: str) -> str:
        parts = value.split(".")
        if len(parts) != 2 or not all(map(is_name, parts)):
            raise ValueError(f"is not schema.name, each of them {NAME_RULE}")
        return value

    @model_validator(mode="after")
    def _is_somewhere(self) -> DeltaConf:
        if (self.path is None) == (self.table is None):
            raise at_key("path", "or table is needed: one of the two")
        return self

    def place(self, root: Path) -> str:
        if self.table:
            return f"Delta table {self.table}"
        path = Path(self.path or "")
        return f"Delta table in {path.relative_to(root) if path.is_relative_to(root) else self.path}"

    def identity(self) -> dict[str, Any]:
        return {"path": self.path, "table": self.table}

    def _places(self) -> tuple[str, ...]:
        return ("_file STRING",) if self.metadata else ()
