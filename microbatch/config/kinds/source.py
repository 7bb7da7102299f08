"""What every kind of source may say in conf, and what the engine asks of each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic_core import PydanticCustomError

from microbatch.config.values import Boolean, Strict, Text, Words

if TYPE_CHECKING:
    from microbatch.config.connection import Connection


class SourceConf(Strict):
    """What every kind of source may say. A further kind is a subclass, and a line in `KINDS`.

    Attributes:
        frequency, volume: how often and how much comes, in words, for the pipeline page.
        metadata: adds columns that say where a row came from.
        unknown_fields: what a field that the schema does not have does, in formats that carry names.
        mask: columns whose values are hidden in letters and pages.
    """

    look_s: ClassVar[float] = 1.0
    """How often a run that goes on asks it whether something is new [s]."""

    in_python: ClassVar[bool] = False
    """Whether Spark asks Python processes for its rows."""

    kind: str
    frequency: Words | None = None
    volume: Words | None = None
    metadata: Boolean = False
    unknown_fields: Literal["ignore", "rescue", "fail"] = "ignore"
    mask: tuple[Text, ...] = ()

    def place(self, root: Path) -> str:
        """Where the source is, in words, for `plan` and pages; no secret in it. `root` is the suite's folder."""
        raise NotImplementedError(self.kind)

    def identity(self) -> dict[str, Any]:
        """What a checkpoint's offsets are offsets of, as JSON holds it: when it changes, they mean nothing any more."""
        raise NotImplementedError(self.kind)

    def lacks(self, connection: Connection | None) -> str | None:
        """What the source needs of its connection and does not find there, in a sentence; None where nothing is missing."""
        return None

    def gone(self) -> str | None:
        """Why a checkpoint that is set back could not read again what was read; None where it can, as long as it is there."""
        return None

    def adds(self) -> tuple[str, ...]:
        """The columns that a flow sees besides those of the source's schema, as DDL, in their order."""
        return (*self._places(), *(("_rescued STRING",) if self.unknown_fields == "rescue" else ()))

    def _places(self) -> tuple[str, ...]:
        """The columns of `metadata: true`, as DDL; empty unless it is asked for."""
        return ()


def at_key(key: str, what: str) -> PydanticCustomError:
    """An error of a key that only a look at the whole record finds."""
    return PydanticCustomError("at_key", "{what}", {"key": key, "what": what})
