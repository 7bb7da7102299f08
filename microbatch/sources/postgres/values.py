"""Values as PostgreSQL writes them, as Spark's types, exactly: a value is the one that was stored, or its row is unparsed.

Both ways of reading a table give text: a SELECT that asks for it, and the stream of changes that knows nothing else. So there
is one conversion, in Arrow, a column at a time. What it makes of them:

    numeric            DECIMAL where it fits without rounding; NaN and the infinities do not
    float4, float8     FLOAT, DOUBLE with NaN and the infinities
    timestamptz        TIMESTAMP, microseconds; timestamp too, taken as UTC
    timestamp          TIMESTAMP_NTZ as it stands; timestamptz too, in UTC
    date               DATE
    (infinity, years before 1 and after 9999 do not fit any of the last four)
    bytea              BINARY
    arrays             ARRAY, as deep as the schema says
    anything           STRING as PostgreSQL writes it: json and jsonb, uuid, time, enum, inet; a bool as t or f; an interval as
                       ISO 8601 (P1DT2H)

Source: PostgreSQL manual, "Data Types"; a type's text is that of its output function under the settings of `connection`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.pandas.types import to_arrow_schema, to_arrow_type
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    ByteType,
    DataType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    ShortType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
)

UNPARSED = (StructField("_unparsed", StringType()), StructField("_problem", StringType()))
HIDDEN = "_mb_cursor"  # not a column of the source's: letters do without
TRUE, FALSE, ENDLESS = "^(t|true)$", "^(f|false)$", "^-?Infinity$"
MOST_DIGITS = pa.decimal128(38, 0)


def converted(
    texts: Sequence[pa.Array],
    schema: StructType,
    more: Sequence[pa.Array] = (),
    problems: Mapping[int, str] | None = None,
) -> pa.RecordBatch:
    """A block of rows.

    Args:
        texts: for each column that the table gives, its values as text, null for null; or of the wanted type already.
        schema: the columns of `texts`, those of `more`, and `UNPARSED`.
        more: columns that need no conversion.
        problems: rows that are known not to be whole, by position.

    Returns:
        Rows of `schema`. A row with a value that does not fit has null in that place, the whole row as JSON of text in
        `_unparsed`, and in `_problem` which columns did not fit.
    """
    fields = list(schema)[: len(texts)]
    made, misfits = [], []
    for field, text in zip(fields, texts, strict=True):
        values, unfit = _column(text, field.dataType)
        made.append(values)
        misfits.append(unfit)
    known = [schema[at] for at in range(len(texts), len(texts) + len(more))]
    whole = {f.name: values for f, values in zip([*fields, *known], [*texts, *more], strict=True) if f.name != HIDDEN}
    unparsed, problem = _told(whole, fields, misfits, problems or {})
    shape = to_arrow_schema(schema, timezone="UTC")
    return pa.RecordBatch.from_arrays([*made, *more, unparsed, problem], schema=shape)


def _told(
    whole: Mapping[str, pa.Array],
    fields: Sequence[StructField],
    misfits: Sequence[pa.Array | None],
    problems: Mapping[int, str],
) -> tuple[pa.Array, pa.Array]:
    told = {at: [problem] for at, problem in problems.items()}
    for field, unfit in zip(fields, misfits, strict=True):
        for at in pc.indices_nonzero(unfit).to_pylist() if unfit is not None else ():
            told.setdefault(at, []).append(f"{field.name} does not fit {field.dataType.simpleString()}")
    rows = len(next(iter(whole.values())))
    if not told:
        return pa.nulls(rows, pa.string()), pa.nulls(rows, pa.string())
    unparsed: list[str | None] = [None] * rows
    problem: list[str | None] = [None] * rows
    for at, sentences in told.items():
        problem[at] = "; ".join(sentences)
        written = {name: values[at].as_py() for name, values in whole.items()}
        as_text = {name: None if value is None else str(value) for name, value in written.items()}
        unparsed[at] = json.dumps(as_text, ensure_ascii=False)
    return pa.array(unparsed, pa.string()), pa.array(problem, pa.string())


def _column(texts: pa.Array, kind: DataType) -> tuple[pa.Array, pa.Array | None]:
    """The values of a column; and where one does not fit, which (then it is null)."""
    if texts.type == to_arrow_type(kind, timezone="UTC"):
        return texts, None
    if isinstance(kind, ArrayType):
        return _lists(texts, kind)
    try:
        return _fast(texts, kind), None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError):
        if len(texts) == 1:
            return pa.nulls(1, to_arrow_type(kind, timezone="UTC")), pa.array([True])
    # A misfit is rare: halving finds it without looking at each value by itself.
    half = len(texts) // 2
    parts = [_column(part, kind) for part in (texts[:half], texts[half:])]
    unfit = [mask if mask is not None else pa.array([False] * len(values), pa.bool_()) for values, mask in parts]
    return pa.concat_arrays([values for values, _ in parts]), pa.concat_arrays(unfit)


def _fast(texts: pa.Array, kind: DataType) -> pa.Array:
    """All values at once.

    Raises:
        ArrowInvalid: at least one of them does not fit.
    """
    if isinstance(kind, StringType):
        return texts
    if isinstance(kind, BooleanType):
        return _booleans(texts)
    if isinstance(kind, BinaryType):
        return pa.array([None if text is None else _bytes(text) for text in texts.to_pylist()], pa.binary())
    target = to_arrow_type(kind, timezone="UTC")
    if isinstance(kind, ByteType | ShortType | IntegerType | LongType):
        try:
            return texts.cast(target)
        except pa.ArrowInvalid:  # 12.00 is a whole number too
            return texts.cast(MOST_DIGITS).cast(target)
    if isinstance(kind, FloatType | DoubleType):
        return _floats(texts, target)
    if isinstance(kind, TimestampType | TimestampNTZType):
        return _times(texts).cast(target)
    if isinstance(kind, DateType | DecimalType):
        return texts.cast(target)
    raise pa.ArrowInvalid(kind.simpleString())


def _booleans(texts: pa.Array) -> pa.Array:
    # By patterns, not by values: to make one of Python's into Arrow's imports pandas, 0.3 s in each process that reads.
    true = pc.match_substring_regex(texts, TRUE)
    known = pc.or_(true, pc.match_substring_regex(texts, FALSE))
    if pc.sum(known).as_py() != len(texts) - texts.null_count and len(texts) > texts.null_count:
        raise pa.ArrowInvalid("not a boolean")
    return pc.if_else(known, true, pa.nulls(len(texts), pa.bool_()))


def _bytes(text: str) -> bytes:
    if not text.startswith("\\x"):
        raise pa.ArrowInvalid("not bytes in hexadecimal")
    return bytes.fromhex(text[2:])


def _floats(texts: pa.Array, target: pa.DataType) -> pa.Array:
    values = texts.cast(target)
    endless = pc.and_(pc.is_inf(values), pc.invert(pc.match_substring_regex(texts, ENDLESS)))
    if pc.any(endless).as_py():
        raise pa.ArrowInvalid("beyond the largest number")
    return values


def _times(texts: pa.Array) -> pa.Array:
    """Points in time, in microseconds and UTC; those without a zone are in UTC.

    Raises:
        ArrowInvalid: one is none, or some have a zone and some have not.
    """
    try:
        return texts.cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:
        return texts.cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))


def _lists(texts: pa.Array, kind: ArrayType) -> tuple[pa.Array, pa.Array | None]:
    parsed: list[Any] = []
    wrong: list[int] = []
    for at, text in enumerate(texts.to_pylist()):
        try:
            parsed.append(None if text is None else parsed_array(text))
        except ValueError:
            parsed.append(None)
            wrong.append(at)
    values, unfit = _nested(parsed, kind)
    unfit = sorted({*wrong, *unfit})
    if not unfit:
        return values, None
    mask = pa.array([at in set(unfit) for at in range(len(texts))], pa.bool_())
    return pc.if_else(mask, pa.scalar(None, values.type), values), mask


def _nested(lists: list[Any], kind: ArrayType) -> tuple[pa.Array, list[int]]:
    """Lists of lists of text as an array of arrays, and the positions of those that do not fit."""
    target = to_arrow_type(kind, timezone="UTC")
    offsets, flat, owner, wrong = [0], [], [], set()
    for at, values in enumerate(lists):
        for value in values or ():
            if value is not None and isinstance(value, list) != isinstance(kind.elementType, ArrayType):
                wrong.add(at)
                value = None
            flat.append(value)
            owner.append(at)
        offsets.append(len(flat))
    if isinstance(kind.elementType, ArrayType):
        children, bad = _nested(flat, kind.elementType)
    else:
        children, mask = _column(pa.array(flat, pa.string()), kind.elementType)
        bad = pc.indices_nonzero(mask).to_pylist() if mask is not None else []
    wrong |= {owner[each] for each in bad}
    nulls = pa.array([values is None for values in lists], pa.bool_())
    made = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), children, type=target, mask=nulls)
    return made, sorted(wrong)


def parsed_array(text: str) -> list[Any]:
    """An array as PostgreSQL writes it, as nested lists of text.

    Raises:
        ValueError: it is none.

    Source: PostgreSQL manual, "Array Input and Output Syntax".
    """
    if text.startswith("["):  # bounds that do not begin at 1 are written before it
        text = text.partition("=")[2]
    stack: list[list[Any]] = [[]]
    at, ends = 0, len(text)
    while at < ends:
        letter = text[at]
        if letter == "{":
            stack.append([])
            at += 1
        elif letter == "}":
            if len(stack) < 2:
                raise ValueError(text)
            done = stack.pop()
            stack[-1].append(done)
            at += 1
        elif letter == ",":
            at += 1
        elif letter == '"':
            value, at = _quoted(text, at + 1)
            stack[-1].append(value)
        else:
            until = at
            while until < ends and text[until] not in ",}":
                until += 1
            word = text[at:until]
            stack[-1].append(None if word == "NULL" else word)
            at = until
    if len(stack) != 1 or len(stack[0]) != 1 or not isinstance(stack[0][0], list):
        raise ValueError(text)
    return list(stack[0][0])


def _quoted(text: str, at: int) -> tuple[str, int]:
    part: list[str] = []
    while at < len(text) and text[at] != '"':
        at += text[at] == "\\"
        part.append(text[at : at + 1])
        at += 1
    return "".join(part), at + 1
