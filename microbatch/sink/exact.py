"""Rows as JSON text that gives the same row back: a letter's payload, a deletion's key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

if TYPE_CHECKING:
    from pyspark.sql import Column

# By default Spark's JSON keeps milliseconds of a timestamp and leaves nulls out.
OPTIONS = {
    "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX",
    "timestampNTZFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS",
    "ignoreNullFields": "false",
}


def to_json(column: Column | str) -> Column:
    """A struct as JSON text."""
    return F.to_json(column, OPTIONS)


def columns_to_json(names: Sequence[str]) -> Column:
    """Some columns of a row as JSON text."""
    return to_json(F.struct(*[f"`{name}`" for name in names]))
