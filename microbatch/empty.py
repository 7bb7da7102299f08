"""Frames without rows, and what columns a schema in DDL declares."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

_SIZED = re.compile(r"(var)?char\(\d+\)")
_DECLARED: dict[str, StructType] = {}


def frame(spark: SparkSession, schema: StructType) -> DataFrame:
    """A frame of these columns without rows.

    PySpark's own would make an RDD of nothing: 30 ms against 8, and 0.1 s in a session that has just begun.

    Raises:
        AnalysisException: a type that no frame has.
    """
    from pyspark.sql import DataFrame

    session = spark._jsparkSession
    nothing = spark._jvm.java.util.ArrayList()  # type: ignore[union-attr]
    return DataFrame(session.createDataFrame(nothing, session.parseDataType(schema.json())), spark)


def declared(spark: SparkSession, ddl: str) -> StructType:
    """The columns of a schema in Spark's DDL; parsed once a process, for each batch asks.

    Raises:
        ParseException, AnalysisException: it is none, or has a type that no frame has.
        ValueError: it is a type and names no column, or has a CHAR or VARCHAR, whose length no reader of Spark's heeds.
    """
    from pyspark.sql.types import StructType

    if ddl not in _DECLARED:
        schema = StructType.fromDDL(ddl)
        if not isinstance(schema, StructType):
            raise ValueError(f"`{ddl}` names no column; write NAME TYPE, …")
        for field in schema:
            if found := _SIZED.search(kind := field.dataType.simpleString()):
                rule = "expect_column_value_lengths_to_be_between"
                raise ValueError(
                    f"{field.name} is {kind}: write STRING for {found[0]}, and its length as a rule, {rule}"
                )
        _DECLARED[ddl] = frame(spark, schema).schema
    return _DECLARED[ddl]
