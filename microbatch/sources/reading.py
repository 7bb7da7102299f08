"""Files of one format as rows: which reader, with which options, so that nothing is skipped, cut or guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from microbatch import empty
from microbatch.sources import columnar, parse
from microbatch.sources.listing import literal

if TYPE_CHECKING:
    from microbatch.sources.files import FilesConf


def read(spark: SparkSession, schema: str, conf: FilesConf, options: dict[str, str], paths: list[str]) -> DataFrame:
    """Read files of one format whole, nothing pruned; see `parse` for the engine's columns.

    Args:
        options: the reader's, names in lower case.
    """
    declared = empty.declared(spark, schema)
    if not paths:
        rescued = ["_rescued STRING"] if conf.unknown_fields == "rescue" else []
        places = ["_file STRING", "_file_modified TIMESTAMP"] if conf.metadata else []
        engine = ["_row STRING", "_unparsed STRING", "_problem STRING"]
        return spark.createDataFrame([], ", ".join([schema, *rescued, *places, *engine]))
    metadata = [
        F.col("_metadata.file_path").alias("_file"),
        F.col("_metadata.file_modification_time").alias("_file_modified"),
    ]
    added = metadata if conf.metadata else []
    if conf.format == "json":
        return _read_json(spark, declared, conf, options, paths, added)
    if conf.format == "csv":
        return _read_csv(spark, declared, options, paths, added)
    if conf.format == "text":
        return parse.text_rows(
            spark.read.format("text").options(**options).load(literal(paths)).select("value", *added), declared
        )
    more: list[StructField] = []
    if conf.unknown_fields != "ignore":
        more = columnar.unknown(declared, columnar.schemas(spark, conf.format, options, paths))
    rows = spark.read.format(conf.format).options(**options).schema(StructType([*declared, *more])).load(literal(paths))
    return parse.typed_rows(rows.select("*", *added), declared, [field.name for field in more], conf.unknown_fields)


def _read_json(
    spark: SparkSession,
    declared: StructType,
    conf: FilesConf,
    options: dict[str, str],
    paths: list[str],
    added: list[Column],
) -> DataFrame:
    whole = options.pop("multiline", "false").lower() == "true"
    of_lines: dict[str, str] = {name: options.pop(name) for name in ("linesep", "compression") if name in options}
    lines = (
        spark.read.format("text")
        .options(**{**of_lines, "wholetext": str(whole).lower()})
        .load(literal(paths))
        .select("value", *added)
    )
    return parse.json_lines(parse.json_documents(lines) if whole else lines, declared, conf.unknown_fields, options)


def _read_csv(
    spark: SparkSession, declared: StructType, options: dict[str, str], paths: list[str], added: list[Column]
) -> DataFrame:
    header = options.get("header", "true").lower() == "true"
    # multiLine: a quoted line break cuts a row in two, and the first half looks good; enforceSchema: a swapped header goes
    # unseen; the corrupt column: a surplus field is dropped unseen without it; text: a number is kept as it was written.
    strict = {
        "multiline": "true",
        **options,
        "header": str(header).lower(),
        "enforceschema": str(not header).lower(),
        "mode": "PERMISSIVE",
        "columnnameofcorruptrecord": "_corrupt",
    }
    as_text = StructType([StructField(name, StringType()) for name in (*declared.fieldNames(), "_corrupt")])
    rows = spark.read.format("csv").options(**strict).schema(as_text).load(literal(paths))
    return parse.csv_rows(rows.select("*", *added), declared, strict)
