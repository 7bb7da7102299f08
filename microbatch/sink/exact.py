"""Values as text that gives the same values back: a row as JSON (a letter's payload, a deletion's key), a time on its way through
Python.

Python would make a time one of the zone that the process is in, where an hour is missing, or there twice, once a year, and knows
no year before the first or behind 9999.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F
from pyspark.sql.types import DateType, TimestampNTZType, TimestampType

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType

TIMES = (DateType, TimestampType, TimestampNTZType)
# By default Spark's JSON keeps milliseconds of a timestamp and leaves nulls out.
OPTIONS = {
    "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX",
    "timestampNTZFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS",
    "ignoreNullFields": "false",
}


def to_json(column: Column | str) -> Column:
    """A struct as JSON text."""
    return F.to_json(column, OPTIONS)


def order_of(rows: DataFrame) -> list[Column]:
    """An order of rows that nothing but their values decides, the same in each attempt. A map and a variant have no order and no
    hash: their text stands for them."""
    values = [
        columns_to_json([name]) if "map<" in kind or "variant" in kind else F.col(f"`{name}`")
        for name, kind in rows.dtypes
    ]
    return [F.xxhash64(*values).desc(), *[value.desc() for value in values]]


def carried(column: Column, kind: DataType) -> Column:
    """A value as Python may hold it: a date or a time as text, all else as it is."""
    return column.cast("string") if isinstance(kind, TIMES) else column


def brought(value: Any, kind: DataType) -> Column:
    """A constant out of what was carried."""
    return F.lit(value).cast(kind) if isinstance(kind, TIMES) else F.lit(value)


def columns_to_json(names: Sequence[str]) -> Column:
    """Some columns of a row as JSON text."""
    return to_json(F.struct(*[f"`{name}`" for name in names]))
