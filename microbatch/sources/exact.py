"""Values out of text, exactly: a value is the one that was written, or it does not fit its type.

Spark's own conversions are kinder: 1.005 becomes 1.01 in a DECIMAL(6,2), `2024-01-01 garbage` the first of January, `12:30` that
time of the day the batch happens to run on, 1e400 Infinity and `12d` twelve. None of these may reach a table unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    DataType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
)

EXACT_DIGITS = 12  # digits kept behind those a decimal declares, to see a value that would have been rounded
TIMES = (DateType, TimestampType, TimestampNTZType)
FORMATS = ("dateformat", "timestampformat", "timestampntzformat", "timezone", "locale")
_NUMBER = r"^\s*[+-]?[0-9.]+([eE][+-]?[0-9]+)?\s*$"
_NO_NUMBER = r"(?i)^\s*[+-]?(nan|inf|infinity)\s*$"
_NO_NUMBER_IN_JSON = r'(?i)[:\[\s"][+-]?(inf|infinity)["\s,}\]]'


@dataclass(frozen=True)
class Exact:
    """One column out of text.

    Attributes:
        value: of the declared type; null where nothing was written or it does not fit.
        misfit: true where something was written that does not fit; None where the parser itself has seen to that.
    """

    field: StructField
    value: Column
    misfit: Column | None

    def problem(self) -> Column:
        if isinstance(self.field.dataType, StringType):
            return F.lit(f"{self.field.name} is not valid UTF-8")
        return F.lit(f"{self.field.name} does not fit {self.field.dataType.simpleString()}")


def formatted(options: Mapping[str, str]) -> bool:
    """Whether the options say how dates and times are written: then Spark's parser reads them, as told."""
    return any(name in options for name in FORMATS)


def widened(schema: StructType, options: Mapping[str, str]) -> StructType:
    """The schema a JSON parser is given: room behind each decimal, so that it does not round; dates and times as text."""
    as_text = not formatted(options)
    return StructType(
        [
            StructField(f.name, StringType() if as_text and isinstance(f.dataType, TIMES) else _wide(f.dataType))
            for f in schema
        ]
    )


def of_json(
    parsed: Column, field: StructField, line: Column, options: Mapping[str, str], made: Column | None = None
) -> Exact:
    """A column of a parsed object of `widened(schema)`.

    Args:
        line: the text it was parsed from.
        made: the value where it is a column already: what is used twice would be worked out twice.
    """
    read, kind = parsed[field.name], field.dataType
    if isinstance(kind, TIMES) and not formatted(options):
        value = made if made is not None else _time_of_json(read, kind, line)
        return Exact(field, value, read.isNotNull() & value.isNull())
    if isinstance(kind, DoubleType | FloatType):
        endless = F.abs(read) == F.lit(float("inf"))
        return Exact(field, read, endless & ~line.rlike(_NO_NUMBER_IN_JSON))
    if _wide(kind) != kind:
        value = made if made is not None else read.try_cast(kind)
        return Exact(field, value, read.isNotNull() & _differs(read, value, _wide(kind)))
    return Exact(field, read, None)


def of_text(text: Column, field: StructField, parsed: Column | None = None, made: Column | None = None) -> Exact:
    """A column of text as its type.

    Args:
        parsed: what Spark's own parser made of it, where the options say how dates and times are written.
        made: the value where it is a column already.
    """
    kind = field.dataType
    if isinstance(kind, StringType):
        return Exact(field, text, text.contains("\ufffd"))  # what a reader puts for bytes that are no text
    value = made if made is not None else _of_text(text, kind, parsed)
    unfit = text.isNotNull() & value.isNull()
    if isinstance(kind, DecimalType):
        return Exact(field, value, unfit | _differs(text.try_cast(_wide(kind)), value, _wide(kind)))
    return Exact(field, value, unfit)


def _of_text(text: Column, kind: DataType, parsed: Column | None) -> Column:
    if isinstance(kind, TIMES):
        return parsed if parsed is not None else _time(text, kind)
    if isinstance(kind, DoubleType | FloatType):
        number = F.when(text.rlike(_NUMBER), text.try_cast(kind))
        finite = F.when(F.abs(number) != F.lit(float("inf")), number)
        return F.coalesce(finite, F.when(text.rlike(_NO_NUMBER), text.try_cast(kind)))
    if isinstance(kind, DecimalType):
        return text.try_cast(_wide(kind)).try_cast(kind)
    return text.try_cast(kind)


def _time_of_json(text: Column, kind: DataType, line: Column) -> Column:
    """A number is seconds since 1970, as it is to Spark; 13 digits of it are not a time but a mistake of a unit."""
    if not isinstance(kind, TimestampType):
        return _time(text, kind)
    number = text.rlike(r"^-?\d{1,12}$") & ~F.contains(line, F.concat(F.lit('"'), text, F.lit('"')))
    return F.coalesce(_time(text, kind), F.timestamp_seconds(F.when(number, text).try_cast("bigint")))


def _time(text: Column, kind: DataType) -> Column:
    """Year, month and day must be written; what stands behind a date must be a time of day."""
    # Single characters, for a pattern costs as much as the whole conversion.
    at = {position: F.substring(text, position, 1) for position in (5, 7, 8)}
    dated = (at[5] == "-") & ((at[7] == "-") | (at[8] == "-"))
    if isinstance(kind, DateType):
        longest = 10  # characters of a date: what is longer has to be a whole timestamp
        dated &= (F.length(text) <= longest) | text.try_cast("timestamp").isNotNull()
    return F.when(dated, text.try_cast(kind))


def _differs(wide: Column, value: Column, type_: DataType) -> Column:
    again = value.try_cast(type_)
    if "map<" in type_.simpleString():  # maps cannot be compared
        return ~F.to_json(F.struct(wide.alias("_"))).eqNullSafe(F.to_json(F.struct(again.alias("_"))))
    return ~wide.eqNullSafe(again)


def _wide(declared: DataType) -> DataType:
    """The type with room behind each decimal in it."""
    if isinstance(declared, DecimalType):
        scale = min(38 - (declared.precision - declared.scale), declared.scale + EXACT_DIGITS)
        return DecimalType(min(38, declared.precision - declared.scale + scale), scale)
    if isinstance(declared, ArrayType):
        return ArrayType(_wide(declared.elementType), declared.containsNull)
    if isinstance(declared, MapType):
        return MapType(declared.keyType, _wide(declared.valueType), declared.valueContainsNull)
    if isinstance(declared, StructType):
        return StructType([StructField(f.name, _wide(f.dataType), f.nullable) for f in declared])
    return declared
