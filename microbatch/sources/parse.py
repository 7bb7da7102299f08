"""Rows out of text, exactly: what does not fit its type is kept as text, never turned into a null that looks fine.

Every reader here gives the columns of the schema and three of the engine's own:

    _row       the input row, for the letter of a row that has to leave: its exact text (JSON), else a struct of its columns
    _unparsed  the text that did not parse; null where the row is fine
    _problem   why it did not parse; null where the row is fine
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DecimalType, StringType, StructField, StructType

ROW, UNPARSED, PROBLEM = "_row", "_unparsed", "_problem"
ENGINE_COLUMNS = (ROW, UNPARSED, PROBLEM)
EXACT_DIGITS = 12  # digits kept behind those a decimal declares, to see a value that would have been rounded


def json_lines(lines: DataFrame, schema: StructType, unknown_fields: str, options: Mapping[str, str]) -> DataFrame:
    """Parse one JSON object a line.

    Spark's own JSON reader skips columns nobody asks for, takes `{..} trailing`, `{..}{..}` and `[..]` for one row, keeps the
    last of two equal keys and rounds decimals. Here the line is read as text; wrapping it into an object of our own makes
    Jackson read it to its end, and the keys show what is unknown or doubled.

    Args:
        lines: has `value` STRING (the line) beside columns that pass through.
        schema: of the object.
        unknown_fields: ignore, rescue (kept as JSON in `_rescued`) or fail (the row is unparsed).
        options: of Spark's from_json (timestampFormat and the like).

    Returns:
        The lines that are not blank, row for row; `_row` is the line itself.
    """
    wide = widened(schema)
    wrapped = StructType([StructField("_", wide), StructField("_corrupt", StringType())])
    settings = {**options, "mode": "PERMISSIVE", "columnNameOfCorruptRecord": "_corrupt"}
    text = F.concat(F.lit('{"_":'), F.col("value"), F.lit("}"))
    keys = F.json_object_keys("value")
    unknown = F.array_except(F.col("_keys"), F.array(*[F.lit(name) for name in schema.fieldNames()]))
    parsed = (
        lines.where(F.length(F.trim("value")) > 0)
        .withColumn("_json", F.from_json(text, wrapped, settings))
        .withColumn("_keys", keys)
    )
    object_ = F.col("_json._")
    problem = _first(
        (~F.is_valid_utf8("value"), F.concat(F.lit("not valid UTF-8; its bytes in base64: "), F.base64("value"))),
        (F.col("_json._corrupt").isNotNull() & F.col("_keys").isNull(), F.lit("not a JSON object")),
        (
            F.col("_json._corrupt").isNotNull() & object_.isNull(),
            F.lit("more than one JSON value, or text after it"),
        ),
        (F.col("_json._corrupt").isNotNull(), _misfits(object_, schema)),
        (object_.isNull(), F.lit("not a JSON object")),
        (F.size(F.array_distinct("_keys")) < F.size("_keys"), F.lit("a field is given twice")),
        (_all_null(object_, schema), F.lit("no field of the schema has a value")),
        *_rounded(object_, schema, wide),
        *(
            [(F.size(unknown) > 0, F.concat(F.lit("unknown field: "), F.array_join(unknown, ", ")))]
            if unknown_fields == "fail"
            else []
        ),
    )
    rescued = {"_rescued": _rescue("value", unknown)} if unknown_fields == "rescue" else {}
    parsed = parsed.withColumns({PROBLEM: problem, ROW: F.make_valid_utf8("value"), **rescued})
    passing = [c for c in lines.columns if c != "value"]
    return parsed.select(
        *[object_[f.name].cast(f.dataType).alias(f.name) for f in schema],
        *rescued,
        *passing,
        ROW,
        F.when(F.col(PROBLEM).isNotNull(), F.col(ROW)).alias(UNPARSED),
        PROBLEM,
    )


def typed_rows(rows: DataFrame, schema: StructType, unknown: list[str], unknown_fields: str) -> DataFrame:
    """Rows of a format that has types (parquet, avro, orc) or needs none (text): all of them are parsed.

    Args:
        rows: has the columns of `schema`, those in `unknown`, and others that pass through.
        unknown: columns of the files that the schema does not name; empty where they are to be ignored.
        unknown_fields: rescue or fail, where `unknown` is not empty.
    """
    has = reduce(lambda a, b: a | b, [F.col(f"`{name}`").isNotNull() for name in unknown]) if unknown else F.lit(False)
    problem = F.when(has, F.lit("unknown field: " + ", ".join(unknown))) if unknown_fields == "fail" else F.lit(None)
    own = [f"`{name}`" for name in schema.fieldNames()]
    row = F.struct(*own, *[f"`{name}`" for name in unknown])
    added = {PROBLEM: problem.cast("string"), ROW: row}
    if unknown_fields == "rescue":
        added["_rescued"] = F.when(has, F.to_json(F.struct(*[f"`{name}`" for name in unknown])))
    rows = rows.withColumns(added).withColumn(UNPARSED, F.when(F.col(PROBLEM).isNotNull(), F.to_json(ROW)))
    return rows.drop(*unknown)


def csv_rows(rows: DataFrame, schema: StructType) -> DataFrame:
    """Rows of Spark's CSV reader over `widened(schema)` with `_corrupt`: a short, long or ill-typed row is unparsed.

    Every column is referenced by `_row`, so that a bad value in a column that the transform drops is seen.
    """
    wide = widened(schema)
    columns = {f.name: F.col(f"`{f.name}`") for f in wide}
    problem = _first(
        (
            F.col("_corrupt").isNotNull(),
            F.lit("the number of fields is not that of the schema, or a value does not fit its type"),
        ),
        *[
            (F.col(f"`{f.name}`").isNotNull() & _changes(F.col(f"`{f.name}`"), f), _does_not_fit(f))
            for f in _decimals(schema)
        ],
    )
    exact = F.coalesce(F.col("_corrupt"), F.to_csv(F.struct(*columns.values())))
    rows = rows.withColumn(PROBLEM, problem).withColumn(UNPARSED, F.when(F.col(PROBLEM).isNotNull(), exact))
    rows = rows.withColumns({f.name: F.col(f"`{f.name}`").cast(f.dataType) for f in _decimals(schema)})
    return rows.withColumn(ROW, F.struct(*[f"`{name}`" for name in schema.fieldNames()])).drop("_corrupt")


def widened(schema: StructType) -> StructType:
    """The schema with room behind each decimal, so that parsing it does not round what will then not fit."""
    return StructType(
        [StructField(f.name, _wide(f.dataType) if isinstance(f.dataType, DecimalType) else f.dataType) for f in schema]
    )


def _wide(declared: DecimalType) -> DecimalType:
    scale = min(38 - (declared.precision - declared.scale), declared.scale + EXACT_DIGITS)
    return DecimalType(min(38, declared.precision - declared.scale + scale), scale)


def _decimals(schema: StructType) -> list[StructField]:
    return [f for f in schema if isinstance(f.dataType, DecimalType)]


def _changes(value: Column, field: StructField) -> Column:
    return ~value.eqNullSafe(value.try_cast(field.dataType))


def _does_not_fit(field: StructField) -> Column:
    return F.lit(f"{field.name} does not fit {field.dataType.simpleString()}")


def _rounded(object_: Column, schema: StructType, wide: StructType) -> list[tuple[Column, Column]]:
    return [(object_[f.name].isNotNull() & _changes(object_[f.name], f), _does_not_fit(f)) for f in _decimals(schema)]


def _all_null(object_: Column, schema: StructType) -> Column:
    return reduce(lambda a, b: a & b, [object_[f.name].isNull() for f in schema])


def _misfits(object_: Column, schema: StructType) -> Column:
    """Which fields are there but came out null: they hold values that do not fit."""
    named = [
        F.when(
            object_[f.name].isNull() & F.array_contains("_keys", f.name),
            F.lit(f"{f.name} does not fit {f.dataType.simpleString()}"),
        )
        for f in schema
    ]
    return F.concat_ws(
        ", ",
        *named,
        F.when(reduce(lambda a, b: a & b, [c.isNull() for c in named]), F.lit("a value does not fit its type")),
    )


def _rescue(text: str, unknown: Column) -> Column:
    fields = F.from_json(text, "map<string,string>")
    return F.when(F.size(unknown) > 0, F.to_json(F.map_filter(fields, lambda key, _: F.array_contains(unknown, key))))


def _first(*cases: tuple[Column, Column]) -> Column:
    """The problem of the first case that is true, or null."""
    column = F.when(*cases[0])
    for case in cases[1:]:
        column = column.when(*case)
    return column.otherwise(F.lit(None).cast("string"))
