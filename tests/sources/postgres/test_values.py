"""Every common type, exactly: what was stored, out of both ways of reading, or the row is unparsed with its text."""

from __future__ import annotations

import datetime as dt
import json
import math
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
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

from microbatch.sources.postgres.values import UNPARSED, converted, parsed_array
from tests.sources.postgres.conftest import OF_CHANGES, Database
from tests.sources.postgres.plainly import Plainly

UTC = dt.timezone.utc
NAN = float("nan")
LONGEST = Decimal("-12345678901234567890.123456789012345678")
# A column's type on the server, in Spark's words, and pairs of what is stored and what is read.
TYPES: tuple[tuple[str, str, DataType, tuple[tuple[str, object], ...]], ...] = (
    ("int2", "SMALLINT", ShortType(), (("-32768", -32768), ("32767", 32767))),
    ("int4", "INT", IntegerType(), (("-2147483648", -(2**31)),)),
    ("int8", "BIGINT", LongType(), (("9223372036854775807", 2**63 - 1), ("-9223372036854775808", -(2**63)))),
    ("int8", "DECIMAL(20,0)", DecimalType(20, 0), (("9223372036854775807", Decimal(2**63 - 1)),)),
    ("numeric(38,18)", "DECIMAL(38,18)", DecimalType(38, 18), ((str(LONGEST), LONGEST),)),
    ("numeric", "DECIMAL(10,2)", DecimalType(10, 2), (("1.500", Decimal("1.50")), ("-0.01", Decimal("-0.01")))),
    ("numeric", "BIGINT", LongType(), (("12.00", 12),)),
    ("float4", "FLOAT", FloatType(), (("0.1", 0.10000000149011612), ("NaN", NAN))),
    ("float8", "DOUBLE", DoubleType(), (("0.1", 0.1), ("1e-300", 1e-300), ("NaN", NAN), ("-Infinity", -math.inf))),
    ("bool", "BOOLEAN", BooleanType(), (("true", True), ("false", False))),
    ("text", "STRING", StringType(), (("", ""), ("ä\\ \" ' {} \t\n é", "ä\\ \" ' {} \t\n é"), ("NULL", "NULL"))),
    ("varchar(5)", "STRING", StringType(), (("abc  ", "abc  "),)),
    ("char(5)", "STRING", StringType(), (("abc", "abc"),)),
    ("bytea", "BINARY", BinaryType(), (("\\x00ff10", b"\x00\xff\x10"), ("\\x", b""))),
    ("date", "DATE", DateType(), (("2024-02-29", dt.date(2024, 2, 29)), ("0001-01-01", dt.date(1, 1, 1)))),
    ("timestamptz", "TIMESTAMP", TimestampType(), (
        ("2024-03-31 02:30:00.000001+02", dt.datetime(2024, 3, 31, 0, 30, 0, 1, UTC)),
        ("9999-12-31 23:59:59.999999+00", dt.datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)),
        ("1883-11-18 12:03:58-04:56:02", dt.datetime(1883, 11, 18, 17, 0, 0, 0, UTC)),
    )),
    ("timestamp", "TIMESTAMP_NTZ", TimestampNTZType(), (("2024-03-31 02:30:00.5", dt.datetime(2024, 3, 31, 2, 30, 0, 500000)),)),
    ("timestamp", "TIMESTAMP", TimestampType(), (("2024-03-31 02:30:00", dt.datetime(2024, 3, 31, 2, 30, tzinfo=UTC)),)),
    ("time", "STRING", StringType(), (("12:30:00.25", "12:30:00.25"),)),
    ("interval", "STRING", StringType(), (("1 year 2 days 03:00:00", "P1Y2DT3H"),)),
    ("uuid", "STRING", StringType(), (("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),)),
    ("jsonb", "STRING", StringType(), (('{"b": [1, null], "a": "x"}', '{"a": "x", "b": [1, null]}'),)),
    ("json", "STRING", StringType(), (('{"b":  1}', '{"b":  1}'),)),
    ("int4[]", "ARRAY<INT>", ArrayType(IntegerType()), (("{1,NULL,3}", [1, None, 3]), ("{}", []), ("[5:6]={7,8}", [7, 8]))),
    ("text[]", "ARRAY<STRING>", ArrayType(StringType()), (
        ('{a,"b,\\"c\\\\",NULL,"NULL",""}', ["a", 'b,"c\\', None, "NULL", ""]),
    )),
    ("numeric[]", "ARRAY<DECIMAL(6,2)>", ArrayType(DecimalType(6, 2)), (("{1.5,2}", [Decimal("1.50"), Decimal("2.00")]),)),
    ("int4[]", "ARRAY<ARRAY<INT>>", ArrayType(ArrayType(IntegerType())), (("{{1,2},{3,4}}", [[1, 2], [3, 4]]),)),
    ("bytea[]", "ARRAY<BINARY>", ArrayType(BinaryType()), (('{"\\\\x01ff"}', [b"\x01\xff"]),)),
    ("mood", "STRING", StringType(), (("sad", "sad"),)),
    ("positive", "INT", IntegerType(), (("7", 7),)),
    ("inet", "STRING", StringType(), (("10.0.0.1/8", "10.0.0.1/8"), ("10.0.0.1", "10.0.0.1"), ("::1", "::1"))),
    ("address", "STRING", StringType(), (("10.0.0.1", "10.0.0.1"),)),
    ("inet[]", "ARRAY<STRING>", ArrayType(StringType()), (("{10.0.0.1,10.0.0.0/8}", ["10.0.0.1", "10.0.0.0/8"]),)),
    ("cidr", "STRING", StringType(), (("10.0.0.1/32", "10.0.0.1/32"),)),
    ("bool", "STRING", StringType(), (("true", "t"), ("false", "f"))),
    ("name", "STRING", StringType(), (("ab ", "ab "),)),
    ('"char"', "STRING", StringType(), (("a", "a"),)),
    ("code", "STRING", StringType(), (("ab", "ab"),)),
)  # fmt: skip
UNFIT: tuple[tuple[str, str, DataType, str], ...] = (
    ("numeric", "DECIMAL(10,2)", DecimalType(10, 2), "NaN"),
    ("numeric", "DECIMAL(10,2)", DecimalType(10, 2), "1.005"),
    ("numeric", "DECIMAL(10,2)", DecimalType(10, 2), "123456789.00"),
    ("numeric", "BIGINT", LongType(), "12.5"),
    ("int8", "TINYINT", ByteType(), "128"),
    ("float8", "FLOAT", FloatType(), "1e300"),
    ("date", "DATE", DateType(), "infinity"),
    ("timestamptz", "TIMESTAMP", TimestampType(), "-infinity"),
    ("timestamptz", "TIMESTAMP", TimestampType(), "10000-01-01 00:00:00+00"),
    ("timestamptz", "TIMESTAMP", TimestampType(), "0044-03-15 00:00:00+00 BC"),
    ("int4[]", "ARRAY<INT>", ArrayType(IntegerType()), "{{1},{2}}"),
    ("text", "BIGINT", LongType(), "12a"),
)


@pytest.fixture
def readers(database: Database, tmp_path: Path):
    """A table of these types, and both ways of reading it; changes are read after the copy of an empty table."""
    database.do("CREATE TYPE mood AS ENUM ('sad')", "CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
    database.do("CREATE DOMAIN address AS inet", "CREATE DOMAIN code AS char(4)")

    def make(types: list[tuple[str, str, DataType]]) -> list[Plainly]:
        columns = ", ".join(f"c{n} {stored}" for n, (stored, _, _) in enumerate(types))
        database.do(f"CREATE TABLE things (id int PRIMARY KEY, seen timestamptz NOT NULL DEFAULT now(), {columns})")
        ddl = ", ".join(["id INT", *[f"c{n} {spark}" for n, (_, spark, _) in enumerate(types)]])
        shape = [
            StructField("id", IntegerType()),
            *[StructField(f"c{n}", kind) for n, (_, _, kind) in enumerate(types)],
        ]
        by_time = Plainly(tmp_path / "time", database.uri, ddl, StructType(shape), table="things", cursor="seen")
        slot = f"slot_{database.name}"
        wide = StructType([*shape, *OF_CHANGES])
        changes = Plainly(tmp_path / "changes", database.uri, ddl, wide, table="things", mode="changes", slot=slot)
        changes.run()
        return [by_time, changes]

    return make


@pytest.mark.slow
def test_each_type_is_read_exactly_both_ways(database: Database, readers):
    with database.connect(autocommit=True) as connection:
        both = readers([(stored, spark, kind) for stored, spark, kind, _ in TYPES])
        most = max(len(pairs) for *_, pairs in TYPES)
        for row in range(most):
            values = [pairs[row][0] if row < len(pairs) else None for *_, pairs in TYPES]
            connection.execute(f"INSERT INTO things VALUES (%s, now(){', %s' * len(values)})", (row, *values))
    for reader in both:
        reader.run()
        found = {row["id"]: row for row in reader.rows()}
        for n, (stored, spark, _, pairs) in enumerate(TYPES):
            for row in range(most):
                value, expected = found[row][f"c{n}"], pairs[row][1] if row < len(pairs) else None
                if isinstance(expected, float) and math.isnan(expected):
                    assert math.isnan(value)
                else:
                    assert (value, type(value)) == (expected, type(expected)), (reader.conf.mode, stored, spark)
        assert [row["_problem"] for row in found.values()] == [None] * most


@pytest.mark.slow
def test_a_copy_says_each_value_as_a_change_does(database: Database, readers, tmp_path: Path):
    (_, changes) = readers([(stored, spark, kind) for stored, spark, kind, _ in TYPES])
    with database.connect(autocommit=True) as connection:
        for row in range(max(len(pairs) for *_, pairs in TYPES)):
            values = [pairs[row][0] if row < len(pairs) else None for *_, pairs in TYPES]
            connection.execute(f"INSERT INTO things VALUES (%s, now(){', %s' * len(values)})", (row, *values))
    changes.run()
    conf = {"table": "things", "mode": "changes", "slot": changes.conf.slot}
    copied = Plainly(tmp_path / "copied", changes.uri, changes.ddl, changes.schema, **conf)
    copied.schema = changes.schema
    copied.run()
    columns = ["id", *[f"c{n}" for n in range(len(TYPES))]]
    told, held = ([{name: str(row[name]) for name in columns} for row in reader.rows()] for reader in (changes, copied))
    assert sorted(held, key=str) == sorted(told, key=str)


@pytest.mark.slow
def test_what_does_not_fit_is_never_a_null_without_a_word(database: Database, readers):
    both = readers([(stored, spark, kind) for stored, spark, kind, _ in UNFIT])
    with database.connect(autocommit=True) as connection:
        for n, (*_, text) in enumerate(UNFIT):
            connection.execute(f"INSERT INTO things (id, c{n}) VALUES (%s, %s)", (n, text))
    for reader in both:
        reader.run()
        found = {row["id"]: row for row in reader.rows()}
        for n, (stored, _, kind, _) in enumerate(UNFIT):
            assert found[n]["_problem"] == f"c{n} does not fit {kind.simpleString()}", stored
            assert json.loads(found[n]["_unparsed"])["id"] == str(n)
            assert found[n][f"c{n}"] is None


def test_a_few_misfits_are_found_among_many():
    texts = [str(number) for number in range(10_000)]
    texts[17], texts[9_999] = "NaN", "1e400"
    schema = StructType([StructField("n", LongType()), *UNPARSED])
    block = converted([pa.array(texts)], schema)
    problems = [at for at, problem in enumerate(block.column("_problem").to_pylist()) if problem]
    assert problems == [17, 9_999]
    assert block.column("n").null_count == 2


@pytest.mark.parametrize("text", ["", "1,2", "{1", "{1}}", "{1}{2}"])
def test_a_text_that_is_no_array_is_refused(text: str):
    with pytest.raises(ValueError):
        parsed_array(text)
