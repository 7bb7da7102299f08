"""The input of dead letters, read again as their source reads it: the line that was kept, or the row as JSON."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from microbatch.sink import exact
from microbatch.sources import parse
from microbatch.sources.files import Files
from microbatch.sources.tables import TableInput


def rows_of(texts: DataFrame, shape: StructType, source: Files | TableInput) -> DataFrame:
    """The rows of letters, with `_unparsed` and `_problem` as the source gives them.

    Args:
        texts: `_letter` (the id, which passes through), `kind` (row or parse) and `value` (the payload).
        shape: what the flow's transform is given.
    """
    if not isinstance(source, Files):
        return _of_json(texts, shape)
    declared = texts.sparkSession.createDataFrame([], source.schema).schema
    options = source.options()
    if source.conf.format == "json":
        options.pop("multiline", None)
        rows = parse.json_lines(texts.drop("kind"), declared, source.conf.unknown_fields, options)
    elif source.conf.format == "csv":
        rows = _of_csv(texts.where("kind = 'parse'"), declared, options)
        rows = rows.unionByName(_of_json(texts.where("kind = 'row'"), declared), allowMissingColumns=True)
    else:
        rows = _of_json(texts, declared)
    missing = [
        field for field in shape if field.name not in rows.columns
    ]  # where the row came from is not in its letter
    return rows.withColumns({field.name: F.lit(None).cast(field.dataType) for field in missing})


def _of_json(texts: DataFrame, shape: StructType) -> DataFrame:
    wide = StructType([*shape, StructField("_corrupt", StringType())])
    settings = {**exact.OPTIONS, "columnNameOfCorruptRecord": "_corrupt"}
    rows = texts.select("_letter", F.from_json("value", wide, settings).alias("_json"))
    problem = F.when(F.col("_corrupt").isNotNull(), F.lit("the recorded row no longer fits the schema"))
    rows = rows.select("_letter", "_json.*").withColumns({"_problem": problem, "_unparsed": F.col("_corrupt")})
    return rows.withColumn("_row", F.col("_letter")).drop("_corrupt")


def _of_csv(texts: DataFrame, declared: StructType, options: dict[str, str]) -> DataFrame:
    as_text = StructType([StructField(name, StringType()) for name in (*declared.fieldNames(), "_corrupt")])
    settings = {**options, "mode": "PERMISSIVE", "columnNameOfCorruptRecord": "_corrupt"}
    rows = texts.select("_letter", F.from_csv("value", as_text.simpleString()[7:-1], settings).alias("_csv"))
    return parse.csv_rows(rows.select("_letter", "_csv.*"), declared, settings).withColumn("_row", F.col("_letter"))
