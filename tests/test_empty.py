"""Frames without rows, and the columns that a schema in DDL declares."""

from __future__ import annotations

import pytest
from pyspark.errors import ParseException
from pyspark.sql import SparkSession

from microbatch import empty

DDL = "a BIGINT, b STRING NOT NULL COMMENT 'x', c DECIMAL(10,2), d STRUCT<x: INT, y: ARRAY<STRING>>, e TIMESTAMP"


def test_an_empty_frame_has_the_columns_that_pyspark_gives_it_and_no_rows(spark: SparkSession):
    schema = empty.declared(spark, DDL)
    assert schema == spark.createDataFrame([], DDL).schema
    frame = empty.frame(spark, schema)
    assert (frame.schema, frame.collect()) == (schema, [])


def test_what_declares_no_columns_of_a_frame_is_refused_each_time(spark: SparkSession):
    for _ in range(2):
        with pytest.raises(ParseException, match="BOGUS"):
            empty.declared(spark, "a BOGUS")
        with pytest.raises(ValueError, match="`int` names no column"):
            empty.declared(spark, "int")
        with pytest.raises(
            ValueError, match=r"a is varchar\(3\): write STRING for varchar\(3\), and its length as a rule"
        ):
            empty.declared(spark, "a VARCHAR(3)")
        with pytest.raises(ValueError, match=r"write STRING for char\(2\)"):
            empty.declared(spark, "a INT, b STRUCT<char: ARRAY<CHAR(2)>>")
