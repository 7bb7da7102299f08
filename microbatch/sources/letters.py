"""The input of dead letters, read again as their source reads it: the line that was kept, or the row as JSON."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from microbatch.sink import exact
from microbatch.sources import parse


def of_json(texts: DataFrame, shape: StructType) -> DataFrame:
    """Rows that were kept as JSON objects of the engine's own making.

    Args:
        texts: `_letter` (the id, which passes through) and `value` (the payload).
    """
    wide = StructType([*shape, StructField("_corrupt", StringType())])
    settings = {**exact.OPTIONS, "columnNameOfCorruptRecord": "_corrupt"}
    rows = texts.select("_letter", F.from_json("value", wide, settings).alias("_json"))
    problem = F.when(F.col("_corrupt").isNotNull(), F.lit("the recorded row no longer fits the schema"))
    rows = rows.select("_letter", "_json.*").withColumns({"_problem": problem, "_unparsed": F.col("_corrupt")})
    return rows.withColumn("_row", F.col("_letter")).drop("_corrupt")


def of_csv(texts: DataFrame, declared: StructType, options: Mapping[str, str]) -> DataFrame:
    """Rows that a CSV source kept: the text of one that did not parse, else the row as JSON."""
    as_text = StructType([StructField(name, StringType()) for name in (*declared.fieldNames(), "_corrupt")])
    settings = {**options, "mode": "PERMISSIVE", "columnNameOfCorruptRecord": "_corrupt"}
    lines = texts.where("kind = 'parse'")
    found = lines.select("_letter", F.from_csv("value", as_text.simpleString()[7:-1], settings).alias("_csv"))
    rows = parse.csv_rows(found.select("_letter", "_csv.*"), declared, settings).withColumn("_row", F.col("_letter"))
    return rows.unionByName(of_json(texts.where("kind = 'row'"), declared), allowMissingColumns=True)


def completed(rows: DataFrame, shape: StructType) -> DataFrame:
    """With null for what a letter does not hold: where its row came from."""
    missing = [field for field in shape if field.name not in rows.columns]
    return rows.withColumns({field.name: F.lit(None).cast(field.dataType) for field in missing})
