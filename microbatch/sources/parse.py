"""Rows out of text, exactly: what does not fit its type is kept as text, never turned into a null that looks fine.

Every reader here gives the columns of the schema and three of the engine's own:

    _row       the input row, for the letter of a row that has to leave: its exact text (JSON), else a struct of its columns
    _unparsed  the text that did not parse; null where the row is fine
    _problem   why it did not parse; null where the row is fine
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce

from pyspark import SparkContext
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BooleanType, MapType, StringType, StructField, StructType

from microbatch.sink.exact import columns_to_json, to_json
from microbatch.sources import exact, written

ROW, UNPARSED, PROBLEM = "_row", "_unparsed", "_problem"
ENGINE_COLUMNS = (ROW, UNPARSED, PROBLEM)
BLANK = " \t\r\n"
KNOWN = (  # Spark SQL manual, "JSON Files", in lower case; but for those of whole files
    *("dateformat", "timestampformat", "timestampntzformat", "enabledatetimeparsingfallback", "timezone", "locale"),
    *("primitivesasstring", "prefersdecimal", "allowcomments", "allowunquotedfieldnames", "allowsinglequotes"),
    *("allownumericleadingzeros", "allowbackslashescapinganycharacter", "allowunquotedcontrolchars"),
    "allownonnumericnumbers",
)
_BROKEN = "not one whole JSON object: there is text after it, or a character that JSON does not allow"
# Half of a pair of escapes that stand for one character: Java would write a question mark for it.
_HALF = (
    r"(?<!\\)(?:\\\\)*(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)
_SENTINELS = (StructField("_end", BooleanType()), StructField("_corrupt", StringType()))


def json_lines(lines: DataFrame, schema: StructType, unknown_fields: str, options: Mapping[str, str]) -> DataFrame:
    """Parse one JSON object a line.

    Spark's own JSON reader skips columns nobody asks for, takes `{..} trailing`, `{..}{..}` and `[..]` for one row, keeps the
    last of two equal keys and rounds decimals. Here the line is read as text; as the one element of a list of our own it must
    be one whole object, with nothing behind it, and the keys show what is unknown or doubled.

    Args:
        lines: has `value` STRING (the line) beside columns that pass through.
        schema: of the object.
        unknown_fields: ignore, rescue (kept as JSON in `_rescued`) or fail (the row is unparsed).
        options: of Spark's from_json (timestampFormat and the like), names in lower case.

    Returns:
        The lines that are not blank, row for row; `_row` is the line itself.
    """
    plan = _json_plan(SparkContext._gateway, schema.json(), unknown_fields, tuple(sorted(options.items())))
    passing = [c for c in lines.columns if c != "value"]
    parsed = lines.where(plan.written)
    for step in plan.steps:
        parsed = parsed.withColumns(step)
    return parsed.select(*plan.values, *passing, *plan.outcome)


@dataclass(frozen=True)
class _JsonPlan:
    """The columns of `json_lines`.

    Attributes:
        written: true for a line that is not blank.
        steps: columns, each step made of those before.
        values: of the schema, and `_rescued`.
        outcome: the engine's own.
    """

    written: Column
    steps: tuple[dict[str, Column], ...]
    values: tuple[Column | str, ...]
    outcome: tuple[Column | str, ...]


@lru_cache(maxsize=64)
def _json_plan(_jvm: object, schema_json: str, unknown_fields: str, given: tuple[tuple[str, str], ...]) -> _JsonPlan:
    """Made once for all batches, and of one JVM: a column costs calls into it, those of six fields a fifth of a second."""
    schema, options = StructType.fromJson(json.loads(schema_json)), dict(given)
    wide = exact.widened(schema, options)
    wrapped = StructType(
        [
            StructField("_", ArrayType(wide)),
            *_SENTINELS,
        ]
    )
    # Spark writes what a parser is told into plans, and those into its event log: what it does not know may be a secret.
    known = {name: options[name] for name in KNOWN if name in options}
    settings = {**known, "mode": "PERMISSIVE", "columnNameOfCorruptRecord": "_corrupt"}
    text = F.concat(F.lit('{"_":['), F.col("value"), F.lit('],"_end":true}'))
    read = {"_json": F.from_json(text, wrapped, settings), "_keys": F.json_object_keys("value")}
    object_, corrupt = F.col("_object"), F.col("_json._corrupt").isNotNull()
    # Each value is worked out once: what is used for its column and for its problem would be worked out twice.
    columns = [exact.of_json(object_, field, F.col("value"), options) for field in schema]
    made = {f"_mb_value_{n}": column.value for n, column in enumerate(columns)}
    columns = [
        exact.of_json(object_, field, F.col("value"), options, F.col(f"_mb_value_{n}"))
        for n, field in enumerate(schema)
    ]
    unknown = F.array_except(F.col("_keys"), F.array(*[F.lit(name) for name in schema.fieldNames()]))
    present = reduce(lambda a, b: a + b, [F.when(object_[f.name].isNotNull(), 1).otherwise(0) for f in schema])
    # As many keys as fields with a value: none is there twice. Comparing the keys themselves costs a fifth of the parsing.
    doubled = (F.size("_keys") > present) & (F.size(F.array_distinct("_keys")) < F.size("_keys"))
    whole = (F.size("_json._") == 1) & F.col("_json._end")
    strict = not any(name.startswith("allow") for name in options)
    problem = _first(
        (~F.is_valid_utf8("value"), F.concat(F.lit("not valid UTF-8; its bytes in base64: "), F.base64("value"))),
        (F.col("_keys").isNull() | (object_.isNull() & ~corrupt), F.lit("not a JSON object")),
        (
            object_.isNull() | ~F.coalesce(whole, F.lit(False)),
            F.lit(_BROKEN),
        ),
        (corrupt, _misfits(object_, columns)),
        (
            F.contains("value", F.lit(r"\u")) & F.col("value").rlike(_HALF),
            F.lit("half of a character: a surrogate without its other half"),
        ),
        (doubled, F.lit("a field is given twice")),
        *(
            [(F.contains("value", F.lit("]")) & ~is_closed("value"), F.lit(f"{_BROKEN}, or a field is given twice"))]
            if strict
            else []
        ),
        *([(~is_closed("value"), F.lit("a field is given twice"))] if _is_nested(schema) and strict else []),
        (present == 0, F.lit("no field of the schema has a value")),
        *_misfitting(columns),
        *(
            [(F.size(unknown) > 0, F.concat(F.lit("unknown field: "), F.array_join(unknown, ", ")))]
            if unknown_fields == "fail"
            else []
        ),
    )
    rescued = {"_rescued": _rescue("value", unknown)} if unknown_fields == "rescue" else {}
    told = {PROBLEM: problem, ROW: F.make_valid_utf8("value"), **rescued}
    return _JsonPlan(
        # Not from both ends: a trim from the right looks at each character first, a sixth of the parsing's time.
        written=F.ltrim("value", F.lit(BLANK)) != "",
        steps=(read, {"_object": F.get("_json._", F.lit(0))}, made, told),
        values=(*[column.value.alias(column.field.name) for column in columns], *rescued),
        outcome=(ROW, F.when(F.col(PROBLEM).isNotNull(), F.col(ROW)).alias(UNPARSED), PROBLEM),
    )


def json_documents(files: DataFrame) -> DataFrame:
    """The objects of whole files (`multiLine`): the elements of a list, or else the file itself, which is then one object.

    Each element is the text that stands in the file, line breaks between its parts as blanks; where that is not found, one whose
    numbers are those of the exact parse.
    """
    value = F.regexp_replace("value", "^\ufeff", "")
    lists = StructType([StructField("_", ArrayType(ArrayType(StringType()))), *_SENTINELS])
    wrapped = F.concat(F.lit('{"_":['), value, F.lit('],"_end":true}'))
    parsed = F.from_json(wrapped, lists, {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": "_corrupt"})
    found = files.withColumn("value", value).withColumn("_list", parsed)
    whole = F.col("_list._corrupt").isNull() & (F.size("_list._") == 1) & F.col("_list._end")
    elements = F.get("_list._", F.lit(0))
    numbers = F.expr("CAST(try_parse_json(value) AS ARRAY<VARIANT>)")
    one = F.when(F.size(numbers) == F.size(elements), F.zip_with(elements, numbers, exact_text)).otherwise(elements)
    said = F.transform(written.elements(F.ltrim("value", F.lit(BLANK))), lambda its: F.translate(its, "\r\n", "  "))
    one = F.when(F.size(said) == F.size(elements), said).otherwise(one)
    nulls = F.transform(one, lambda element: F.coalesce(element, F.lit("null")))
    is_list = F.col("value").rlike(r"^\s*\[") & F.coalesce(whole & elements.isNotNull(), F.lit(False))
    return found.withColumn("value", F.explode(F.when(is_list, nulls).otherwise(F.array("value")))).drop("_list")


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
        more = columns_to_json(unknown) if unknown else F.lit(None).cast("string")
        added["_rescued"] = F.when(has, more)
    rows = rows.withColumns(added).withColumn(UNPARSED, F.when(F.col(PROBLEM).isNotNull(), to_json(ROW)))
    return rows.drop(*unknown)


def text_rows(lines: DataFrame, schema: StructType) -> DataFrame:
    """Lines as they are, in the one column of the schema; bytes that are no UTF-8 are unparsed."""
    name = schema.fieldNames()[0]
    bytes_ = F.concat(F.lit("not valid UTF-8; its bytes in base64: "), F.base64("value"))
    return lines.select(
        F.make_valid_utf8("value").alias(name),
        *[column for column in lines.columns if column != "value"],
        F.struct(F.make_valid_utf8("value").alias(name)).alias(ROW),
        F.when(~F.is_valid_utf8("value"), F.make_valid_utf8("value")).alias(UNPARSED),
        F.when(~F.is_valid_utf8("value"), bytes_).alias(PROBLEM),
    )


def csv_rows(rows: DataFrame, schema: StructType, options: Mapping[str, str]) -> DataFrame:
    """Rows of Spark's CSV reader that read every column as text: a short, long or ill-typed row is unparsed.

    Every column is converted for `_problem`, so that a bad value in a column that the transform drops is seen.

    Args:
        rows: has the columns of `schema`, all STRING, `_corrupt` (a row with too few or too many fields), and others.
        options: those the reader had, names in lower case.
    """
    names = schema.fieldNames()
    text = {name: F.col(f"`{name}`") for name in names}
    parsed = _as_told(schema, text, options) if exact.formatted(options) else {}
    values = [exact.of_text(text[field.name], field, parsed.get(field.name)).value for field in schema]
    rows = rows.withColumns({f"_mb_value_{n}": value for n, value in enumerate(values)})
    made = [F.col(f"_mb_value_{n}") for n in range(len(values))]
    columns = [exact.of_text(text[field.name], field, made=one) for field, one in zip(schema, made, strict=True)]
    number = F.lit(f"the number of fields is not that of the schema ({len(names)}), or a quote is not closed")
    problem = _first((F.col("_corrupt").isNotNull(), number), *_misfitting(columns))
    written = {"ignoreleadingwhitespace": "false", "ignoretrailingwhitespace": "false"}
    same = {name: options[name] for name in ("sep", "delimiter", "quote", "escape", "nullvalue") if name in options}
    whole = F.coalesce(F.col("_corrupt"), F.to_csv(F.struct(*text.values()), {**same, **written}))
    rows = rows.withColumns({PROBLEM: problem}).withColumn(UNPARSED, F.when(F.col(PROBLEM).isNotNull(), whole))
    rows = rows.withColumns({column.field.name: column.value for column in columns})
    rows = rows.withColumn(ROW, F.struct(*[f"`{name}`" for name in names]))
    return rows.drop("_corrupt", *[f"_mb_value_{n}" for n in range(len(made))])


def _as_told(schema: StructType, text: Mapping[str, Column], options: Mapping[str, str]) -> dict[str, Column]:
    """Dates and times by Spark's own parser, which knows formats, zones and locales."""
    times = StructType([field for field in schema if isinstance(field.dataType, exact.TIMES)])
    told = {name: options[name] for name in exact.FORMATS if name in options}
    one = F.to_json(F.struct(*[text[name].alias(name) for name in times.fieldNames()]))
    return {name: F.from_json(one, times, told)[name] for name in times.fieldNames()} if len(times) else {}


def is_closed(text: str) -> Column:
    """Whether a text that is one element of a list is one value of an object, too: what is both closes neither."""
    return F.try_parse_json(F.concat(F.lit('{"_":'), F.col(text), F.lit("}"))).isNotNull()


def exact_text(element: Column, number: Column) -> Column:
    """The text of a part of a document, or that of its exact parse (a variant), where the two are not the same value."""
    again = F.to_json(number)
    return F.when(F.to_json(F.try_parse_json(element)).eqNullSafe(again), element).otherwise(again)


def _is_nested(schema: StructType) -> bool:
    return any(isinstance(field.dataType, StructType | ArrayType | MapType) for field in schema)


def _misfitting(columns: list[exact.Exact]) -> list[tuple[Column, Column]]:
    return [(column.misfit, column.problem()) for column in columns if column.misfit is not None]


def _misfits(object_: Column, columns: list[exact.Exact]) -> Column:
    """Which fields are there but came out null: they hold values that do not fit."""
    named = [
        F.when(object_[name].isNull() & F.array_contains("_keys", name), column.problem())
        for column in columns
        for name in (column.field.name,)
    ]
    nothing = reduce(lambda a, b: a & b, [c.isNull() for c in named])
    return F.concat_ws(", ", *named, F.when(nothing, F.lit("a value does not fit its type")))


def _rescue(text: str, unknown: Column) -> Column:
    """The fields the schema does not name, as JSON: numbers stay numbers, objects stay objects."""
    fields = F.from_json(text, "map<string,variant>")
    return F.when(F.size(unknown) > 0, F.to_json(F.map_filter(fields, lambda key, _: F.array_contains(unknown, key))))


def _first(*cases: tuple[Column, Column]) -> Column:
    """The problem of the first case that is true, or null."""
    column = F.when(*cases[0])
    for case in cases[1:]:
        column = column.when(*case)
    return column.otherwise(F.lit(None).cast("string"))
