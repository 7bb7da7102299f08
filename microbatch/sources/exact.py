"""Values out of text, exactly: a value is the one that was written, or it does not fit its type.

Spark's own conversions are kinder: 1.005 becomes 1.01 in a DECIMAL(6,2), `2024-01-01 garbage` the first of January, `12:30` that
time of the day the batch happens to run on, 1e400 Infinity, `12d` twelve and 1.10 the text `1.1`. None of these may reach a
table unseen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

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

from microbatch.sources import written

MOST_DIGITS = 38  # of a decimal of Spark's
EXACT_DIGITS = 12  # digits kept behind those a decimal declares, to see a value that would have been rounded
TIMES = (DateType, TimestampType, TimestampNTZType)
FORMATS = ("dateformat", "timestampformat", "timestampntzformat", "timezone", "locale")
_NUMBER = r"^\s*[+-]?[0-9.]+([eE][+-]?[0-9]+)?\s*$"
_NO_NUMBER = r"(?i)^\s*[+-]?(nan|inf|infinity)\s*$"
_FLOATING = r"^-?[0-9]+\.[0-9]+(E-?[0-9]+)?$"  # how Java writes a number that went through floating point
_INFINITE = ('"Infinity"', '"-Infinity"')  # how it writes one that is none any more
_NO_NUMBER_IN_JSON = r'(?i)[:\[\s"][+-]?(inf|infinity)["\s,}\]]'


@dataclass(frozen=True)
class Exact:
    """One column out of text.

    Attributes:
        value: of the declared type; null where nothing was written or it does not fit.
        misfit: true where something was written that does not fit; None where the parser itself has seen to that.
        why: what is wrong then, where it is not the type.
    """

    field: StructField
    value: Column
    misfit: Column | None
    why: str | None = None

    def problem(self) -> Column:
        return F.lit(f"{self.field.name} {self.why or f'does not fit {self.field.dataType.simpleString()}'}")


def formatted(options: Mapping[str, str]) -> bool:
    """Whether the options say how dates and times are written: then Spark's parser reads them, as told."""
    return any(name in options for name in FORMATS)


def widened(schema: StructType, options: Mapping[str, str]) -> StructType:
    """The schema a JSON parser is given: room behind each decimal, so that it does not round; dates and times as text. So too
    inside of structs, arrays and maps."""
    return StructType([StructField(f.name, _parsed(f.dataType, formatted(options))) for f in schema])


def of_json(
    parsed: Column, field: StructField, line: Column, options: Mapping[str, str], made: Column | None = None
) -> Exact:
    """A column of a parsed object of `widened(schema)`.

    Args:
        line: the text it was parsed from.
        made: the value where it is a column already: what is used twice would be worked out twice.
    """
    read, kind, as_told = parsed[field.name], field.dataType, formatted(options)
    loose = _is_loose(kind, as_told)
    if not loose and not _has_text(kind):
        return Exact(field, read, None)
    value = made
    if value is None:
        value = _of_json(_with_texts(read, kind, field.name, line), kind, field.name, line, as_told)
    if isinstance(kind, StringType):
        unfound = read.isNotNull() & value.isNull()
        return Exact(field, value, unfound, "is not found in the line as it was written")
    if not loose:
        return Exact(field, value, _may_be_changed(read, kind, line) & _misfit(read, value, kind, line, as_told))
    if isinstance(kind, DecimalType) and not _has_room(kind):
        return Exact(field, value, read.isNotNull() & _is_rounded_in(line, field.name, value, kind))
    return Exact(field, value, _misfit(read, value, kind, line, as_told))


def of_text(text: Column, field: StructField, parsed: Column | None = None, made: Column | None = None) -> Exact:
    """A column of text as its type.

    Args:
        parsed: what Spark's own parser made of it, where the options say how dates and times are written.
        made: the value where it is a column already.
    """
    kind = field.dataType
    if isinstance(kind, StringType):
        replaced = text.contains("\ufffd")  # what a reader puts for bytes that are no text
        return Exact(field, text, replaced, "is not valid UTF-8")
    value = made if made is not None else _of_text(text, kind, parsed)
    unfit = text.isNotNull() & value.isNull()
    if isinstance(kind, DecimalType):
        return Exact(field, value, unfit | (text.isNotNull() & _is_rounded(text, value, kind)))
    return Exact(field, value, unfit)


def _of_text(text: Column, kind: DataType, parsed: Column | None) -> Column:
    if isinstance(kind, TIMES):
        return parsed if parsed is not None else _time(text, kind)
    if isinstance(kind, DoubleType | FloatType):
        number = F.when(text.rlike(_NUMBER), text.try_cast(kind))
        finite = F.when(F.abs(number) != F.lit(float("inf")), number)
        return F.coalesce(finite, F.when(text.rlike(_NO_NUMBER), text.try_cast(kind)))
    if isinstance(kind, DecimalType):
        return (text.try_cast(_wide(kind)) if _has_room(kind) else text).try_cast(kind)
    return text.try_cast(kind)


def _is_loose(kind: DataType, as_told: bool) -> bool:
    """Whether the parser would take what is none, or not exactly one, for a value of the type.

    Args:
        as_told: dates and times are read by Spark's parser, as the options say.
    """
    if isinstance(kind, StructType):
        return any(_is_loose(f.dataType, as_told) for f in kind)
    if isinstance(kind, ArrayType | MapType):
        return _is_loose(_inner(kind), as_told)
    return isinstance(kind, DecimalType | DoubleType | FloatType) or (isinstance(kind, TIMES) and not as_told)


def _has_text(kind: DataType) -> bool:
    """Whether there is a text in the type, of which the parser would make one of its own where the line holds none."""
    if isinstance(kind, StructType):
        return any(_has_text(f.dataType) for f in kind)
    if isinstance(kind, ArrayType | MapType):
        return _has_text(_inner(kind))
    return isinstance(kind, StringType)


def _may_be_changed(read: Column, kind: DataType, line: Column) -> Column:
    """Whether a text, here or inside, may be one the line does not hold: made of a number, or of an object or a list.

    Every text of every line is asked: so first what a comparison of bytes tells.
    """
    if not _has_text(kind):
        return F.lit(False)
    if isinstance(kind, StructType):
        return reduce(lambda one, other: one | other, [_may_be_changed(read[f.name], f.dataType, line) for f in kind])
    if isinstance(kind, ArrayType | MapType):
        each = read if isinstance(kind, ArrayType) else F.map_values(read)
        return F.exists(each, lambda one: _may_be_changed(one, _inner(kind), line))
    number = (F.contains(read, F.lit(".")) & read.rlike(_FLOATING)) | ((read == "0") & F.contains(line, F.lit("-0")))
    made = F.startswith(read, F.lit("{")) | F.startswith(read, F.lit("["))
    return ((read >= "-") & (read < ":") & number) | made | (F.startswith(read, F.lit('"')) & read.isin(*_INFINITE))


def _with_texts(read: Column, kind: DataType, name: str, line: Column) -> Column:
    """The value under a name of a line, its texts as the line has them; null, or a null inside, where one is not found."""
    if not _has_text(kind):
        return read
    as_written = _as_written(read, kind, written.member(line, name))
    return F.when(_may_be_changed(read, kind, line), as_written).otherwise(read)


def _as_written(read: Column, kind: DataType, said: Column) -> Column:
    """The same, inside of it too.

    Args:
        said: what the line says of the value, to the character.
    """
    if isinstance(kind, StringType):
        return F.when(read.isNull() | said.rlike("^[\"']"), read).otherwise(said)
    if isinstance(kind, StructType):
        fields = [_as_written(read[f.name], f.dataType, written.member(said, f.name)).alias(f.name) for f in kind]
        return F.when(read.isNotNull(), F.struct(*fields))
    if isinstance(kind, ArrayType):
        return F.zip_with(read, written.elements(said), lambda one, its: _as_written(one, kind.elementType, its))
    if isinstance(kind, MapType):
        said = written.members(said)
        values = F.zip_with(F.map_values(read), said, lambda one, its: _as_written(one, kind.valueType, its))
        return F.map_from_arrays(F.map_keys(read), values)
    return read


def _parsed(kind: DataType, as_told: bool) -> DataType:
    """What the parser is to make of a type."""
    if isinstance(kind, DecimalType):
        return _wide(kind) if _has_room(kind) else kind
    if isinstance(kind, TIMES):
        return kind if as_told else StringType()
    if isinstance(kind, ArrayType):
        return ArrayType(_parsed(kind.elementType, as_told), kind.containsNull)
    if isinstance(kind, MapType):
        return MapType(kind.keyType, _parsed(kind.valueType, as_told), kind.valueContainsNull)
    if isinstance(kind, StructType):
        return StructType([StructField(f.name, _parsed(f.dataType, as_told), f.nullable) for f in kind])
    return kind


def _of_json(read: Column, kind: DataType, name: str, line: Column, as_told: bool) -> Column:
    """The value out of what the parser made; null, or a null inside, where it does not fit."""
    if not _is_loose(kind, as_told):
        return read
    if isinstance(kind, TIMES):
        return _time_of_json(read, kind, name, line)
    if isinstance(kind, ArrayType):
        return F.transform(read, lambda each: _of_json(each, kind.elementType, name, line, as_told))
    if isinstance(kind, MapType):
        return F.transform_values(read, lambda _, each: _of_json(each, kind.valueType, name, line, as_told))
    if isinstance(kind, StructType):
        fields = [_of_json(read[f.name], f.dataType, f.name, line, as_told).alias(f.name) for f in kind]
        return F.when(read.isNotNull(), F.struct(*fields))
    return read.try_cast(kind)


def _misfit(read: Column, value: Column, kind: DataType, line: Column, as_told: bool) -> Column:
    """True where something was written, here or inside, that the value is not."""
    if not _is_loose(kind, as_told) and not _has_text(kind):
        return F.lit(False)
    if isinstance(kind, DoubleType | FloatType):
        return (F.abs(read) == F.lit(float("inf"))) & ~line.rlike(_NO_NUMBER_IN_JSON)
    if isinstance(kind, DecimalType):
        return read.isNotNull() & _is_rounded(read, value, kind) if _has_room(kind) else F.lit(False)
    if isinstance(kind, StructType):
        inside = [_misfit(read[f.name], value[f.name], f.dataType, line, as_told) for f in kind]
        return reduce(lambda one, other: one | other, inside)
    if isinstance(kind, ArrayType | MapType):
        pair = (read, value) if isinstance(kind, ArrayType) else (F.map_values(read), F.map_values(value))
        unfit = F.zip_with(*pair, lambda one, other: _misfit(one, other, _inner(kind), line, as_told))
        return F.coalesce(F.exists(unfit, lambda each: each), read.isNotNull() & value.isNull())
    return read.isNotNull() & value.isNull()


def _inner(kind: ArrayType | MapType) -> DataType:
    return kind.elementType if isinstance(kind, ArrayType) else kind.valueType


def _time_of_json(text: Column, kind: DataType, name: str, line: Column) -> Column:
    """A number is seconds since 1970, as it is to Spark; 13 digits of it are not a time but a mistake of a unit."""
    if not isinstance(kind, TimestampType):
        return _time(text, kind)
    # What the parser gives for a number and for the same digits in quotes is one text: the line tells them apart.
    plainly = F.concat(F.lit(f'"{re.escape(name)}"\\s*:[^"]*?'), text, F.lit(r"\s*[,}\]]"))
    unquoted = ~F.contains(line, F.concat(F.lit('"'), text, F.lit('"'))) | F.rlike(line, plainly)
    number = F.when(text.rlike(r"^-?\d{1,12}$"), unquoted)
    return F.coalesce(_time(text, kind), F.timestamp_seconds(F.when(number, text).try_cast("bigint")))


def _time(text: Column, kind: DataType) -> Column:
    """Year, month and day must be written; what stands behind a date must be a time of day."""
    # Single characters, for a pattern costs as much as the whole conversion.
    at = {position: F.substring(text, position, 1) for position in (5, 7, 8)}
    dated = (at[5] == "-") & ((at[7] == "-") | (at[8] == "-"))
    if isinstance(kind, DateType):
        last = F.substring(text, 10, 1)
        plain = (F.length(text) == 10) & (at[8] == "-") & (last >= "0") & (last <= "9")
        # What is no date of ten characters has to be a shorter one, or a whole timestamp.
        dated &= plain | text.rlike(r"^\s*\d{4}-\d{1,2}-\d{1,2}\s*$") | text.try_cast("timestamp").isNotNull()
    return F.when(dated, text.try_cast(kind))


def _is_rounded(written: Column, value: Column, kind: DecimalType) -> Column:
    """Whether a value is not the decimal that was written: text, or parsed with room behind it."""
    if _has_room(kind):
        return ~written.try_cast(_wide(kind)).eqNullSafe(value.try_cast(_wide(kind)))
    return value.isNull() | (_digits_behind(written) > kind.scale)


def _is_rounded_in(line: Column, name: str, value: Column, kind: DecimalType) -> Column:
    """Whether a value is none of the numbers that a line gives a name, where one of those has more digits than the type.

    A parser makes floating point of a number that it is asked to give as text, so that text cannot be asked for.
    """
    pattern = rf'"{re.escape(name)}"\s*:\s*"?\s*([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)'
    written = F.regexp_extract_all(line, F.lit(pattern), F.lit(1))
    finer = F.exists(written, lambda each: _digits_behind(each) > kind.scale)
    same = F.exists(written, lambda each: (_digits_behind(each) <= kind.scale) & each.try_cast(kind).eqNullSafe(value))
    return finer & ~same


def _digits_behind(number: Column) -> Column:
    """How many digits behind the point a number needs."""
    behind = F.length(F.rtrim(F.regexp_extract(number, r"\.([0-9]*)", 1), F.lit("0")))
    exponent = F.coalesce(F.regexp_extract(number, r"[eE]([+-]?[0-9]+)\s*$", 1).try_cast("int"), F.lit(0))
    return behind - exponent


def _has_room(kind: DecimalType) -> bool:
    return bool(kind.precision + EXACT_DIGITS <= MOST_DIGITS)


def _wide(kind: DecimalType) -> DecimalType:
    """The type with room behind it."""
    return DecimalType(kind.precision + EXACT_DIGITS, kind.scale + EXACT_DIGITS)
