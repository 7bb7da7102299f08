"""What files that carry their own types hold (parquet, orc, avro), held against what the schema says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pyspark.sql.types import (
    ArrayType,
    ByteType,
    DataType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    ShortType,
    StructField,
    StructType,
)

from microbatch.sources.listing import literal

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DIGITS: dict[type[DataType], int] = {ByteType: 3, ShortType: 5, IntegerType: 10, LongType: 20}


def schemas(spark: SparkSession, kind: str, options: Mapping[str, str], paths: Sequence[str]) -> list[StructType]:
    """The schemas of these files: one for all where they go together, else one each; none of a file that cannot be read.

    A file that cannot be read is left to the read itself, which names it.
    """
    settings = {**options, "mergeschema": "true"}

    def found(some: Sequence[str]) -> StructType | None:
        try:
            return spark.read.format(kind).options(**settings).load(literal(some)).schema
        except Exception:  # unreadable, of no rows and no schema, or of types that do not go together
            return None

    together = found(paths) if kind != "avro" else None  # avro takes the first file's schema for that of all
    if together is not None:
        return [together]
    return [schema for path in paths if (schema := found([path])) is not None]


def unknown(declared: StructType, of_files: Sequence[StructType]) -> list[StructField]:
    """The columns of the files that the schema does not name; upper and lower case are the same, as they are to Spark."""
    named = {name.lower() for name in declared.fieldNames()}
    more: dict[str, StructField] = {}
    for schema in of_files:
        for field in schema:
            if field.name.lower() not in named:
                more.setdefault(field.name.lower(), StructField(field.name, field.dataType))
    return list(more.values())


def misfit(declared: StructType, schema: StructType) -> str | None:
    """Which columns of a file would not come out as they are stored, or None.

    ORC's reader turns what it cannot convert into null or rounds it, without a word; the others refuse the file.
    """
    stored = {field.name.lower(): field.dataType for field in schema}
    found = [
        f"{field.name} is {stored[field.name.lower()].simpleString()}, the schema says {field.dataType.simpleString()}"
        for field in declared
        if field.name.lower() in stored and not _keeps(stored[field.name.lower()], field.dataType)
    ]
    return f"column {'; '.join(found)}" if found else None


def _keeps(stored: DataType, declared: DataType) -> bool:
    """Whether every value of the one type is a value of the other."""
    kinds = (type(stored), type(declared))
    if isinstance(stored, DecimalType) and isinstance(declared, DecimalType):
        whole = declared.precision - declared.scale >= stored.precision - stored.scale
        return whole and declared.scale >= stored.scale
    if isinstance(declared, DecimalType) and kinds[0] in DIGITS:
        return declared.precision - declared.scale >= DIGITS[kinds[0]]
    if kinds[0] in DIGITS and kinds[1] in DIGITS:
        return DIGITS[kinds[1]] >= DIGITS[kinds[0]]
    if isinstance(stored, ArrayType) and isinstance(declared, ArrayType):
        return _keeps(stored.elementType, declared.elementType)
    if isinstance(stored, MapType) and isinstance(declared, MapType):
        return _keeps(stored.keyType, declared.keyType) and _keeps(stored.valueType, declared.valueType)
    if isinstance(stored, StructType) and isinstance(declared, StructType):
        return misfit(declared, stored) is None
    return kinds[0] is kinds[1] or kinds == (FloatType, DoubleType)
