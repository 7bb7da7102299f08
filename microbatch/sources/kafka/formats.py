"""Messages as rows: json, csv, raw; each is a row, or a text that did not parse with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from microbatch import empty
from microbatch.sources.input import NEWEST

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import StructType

NO_VALUE = "(no value)"  # what stands in a letter for a message that has none


@dataclass(frozen=True)
class Format:
    """How values are read.

    Attributes:
        name: json, csv, raw or debezium.
        metadata: adds where a message was: `_topic _partition _offset _timestamp _key`.
        unknown_fields: see `parse.json_lines`.
        options: Spark's for JSON or CSV, names in lower case.
    """

    name: str
    metadata: bool = False
    unknown_fields: str = "ignore"
    options: Mapping[str, str] = field(default_factory=dict)

    def rows(self, messages: DataFrame, schema: str) -> DataFrame:
        """The rows of messages as Spark's source gives them, with the engine's columns (see `parse`) and `NEWEST`."""
        from pyspark.sql import functions as F

        declared = empty.declared(messages.sparkSession, schema)
        places = self._places()
        added = [column.alias(name) for name, column in {**places, NEWEST: F.col("timestamp")}.items()]
        kept = messages.select("key", "value", *added)
        if self.name == "raw":
            return _raw(kept, declared, list(places))
        kept = kept.drop("key").withColumn("value", F.col("value").cast("string"))
        if self.name == "debezium":
            from microbatch.sources.kafka import debezium

            return debezium.rows(kept, declared, self.unknown_fields, self.options, list(places))
        if self.name == "csv":
            return _with_places(_csv(kept, declared, self.options), declared, list(places))
        rows = self._json(kept, declared)
        return _with_places(rows, declared, list(places)) if places else rows

    def of_letters(self, texts: DataFrame, schema: str, shape: StructType) -> DataFrame:
        """See `Input`."""
        from microbatch.sources import letters

        declared = empty.declared(texts.sparkSession, schema)
        if self.name == "json" and not self.metadata:
            return self._json(texts.drop("kind"), declared)
        rows = letters.of_json(texts.where("kind = 'row'"), shape)
        unparsed = texts.where("kind = 'parse'").drop("kind")
        if self.name == "raw":
            return letters.of_json(texts, shape)
        if self.name == "csv":
            again = _csv(unparsed, declared, self.options)
        elif self.name == "json":
            again = self._json(unparsed, declared)
        else:
            from microbatch.sources.kafka import debezium

            again = debezium.rows(unparsed, declared, self.unknown_fields, self.options, [])
        return rows.unionByName(_by_letter(again), allowMissingColumns=True)

    def _json(self, lines: DataFrame, declared: StructType) -> DataFrame:
        from pyspark.sql import functions as F

        from microbatch.sources import parse

        blank = F.coalesce(F.ltrim("value", F.lit(parse.BLANK)), F.lit("")) == ""
        lines = lines.withColumn("value", F.when(blank, F.lit(NO_VALUE)).otherwise(F.col("value")))
        return parse.json_lines(lines, declared, self.unknown_fields, self.options)

    def _places(self) -> dict[str, Column]:
        from pyspark.sql import functions as F

        if not self.metadata:
            return {"_offset": F.col("offset")} if self.name == "debezium" else {}
        key = F.col("key").cast("string")
        return {
            "_topic": F.col("topic"),
            "_partition": F.col("partition"),
            "_offset": F.col("offset"),
            "_timestamp": F.col("timestamp"),
            "_key": F.when(F.is_valid_utf8(key), key).otherwise(F.base64("key")),
        }


def _with_places(rows: DataFrame, declared: StructType, places: list[str]) -> DataFrame:
    """With `_row` as a struct that holds where the message was, too: a replay must know what a row is newest by."""
    from pyspark.sql import functions as F

    names = [*declared.fieldNames(), *(["_rescued"] if "_rescued" in rows.columns else []), *places]
    return rows.withColumn("_row", F.struct(*[f"`{name}`" for name in names]))


def _by_letter(rows: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    return rows.withColumn("_row", F.col("_letter"))


def _raw(messages: DataFrame, declared: StructType, places: list[str]) -> DataFrame:
    """`key` and `value` as they are; as text they must be UTF-8."""
    from functools import reduce

    from pyspark.sql import functions as F
    from pyspark.sql.types import StringType

    texts = [f.name for f in declared if isinstance(f.dataType, StringType)]
    nothing: Any = F.lit(False)
    unfit = {name: F.coalesce(~F.is_valid_utf8(F.col(name).cast("string")), F.lit(False)) for name in texts}
    bad = reduce(lambda a, b: a | b, unfit.values(), nothing)
    told = [
        F.when(no, F.concat(F.lit(f"{name} is not valid UTF-8; its bytes in base64: "), F.base64(name)))
        for name, no in unfit.items()
    ]
    problem = F.when(bad, F.concat_ws("; ", *told)).cast("string")
    whole = F.coalesce(F.make_valid_utf8(F.col("value").cast("string")), F.lit(NO_VALUE))
    rows = messages.withColumns({"_problem": problem, "_unparsed": F.when(bad, whole)})
    rows = rows.withColumns({name: F.make_valid_utf8(F.col(name).cast("string")) for name in texts})
    rows = _with_places(rows, declared, places)
    return rows.drop(*[name for name in ("key", "value") if name not in declared.fieldNames()])


def _csv(lines: DataFrame, declared: StructType, options: Mapping[str, str]) -> DataFrame:
    """One line of CSV a message. Spark's parser takes the first of many, and an unclosed quote for the end of a field."""
    from pyspark.sql import functions as F

    from microbatch.sources import parse

    quote = options.get("quote", '"')
    settings = {"escape": quote, **options, "mode": "PERMISSIVE", "columnnameofcorruptrecord": "_corrupt"}
    line = F.regexp_replace("value", r"\r?\n$", "")
    blank = F.coalesce(F.ltrim(line), F.lit("")) == ""
    quotes = F.length(line) - F.length(F.replace(line, F.lit(quote), F.lit("")))
    doubles = bool(quote) and settings["escape"] == quote
    whole = (
        F.when(blank, F.lit("the message has no value"))
        .when(line.rlike(r"[\r\n]"), F.lit("the message has more than one line"))
        .when(F.lit(doubles) & (quotes % 2 == 1), F.lit(f"an odd number of quotes ({quote}): one is not closed"))
        .when(~F.is_valid_utf8("value"), F.concat(F.lit("not valid UTF-8; its bytes in base64: "), F.base64("value")))
    )
    lines = lines.withColumns(
        {"_mb_line": F.when(blank, F.lit(NO_VALUE)).otherwise(F.make_valid_utf8("value")), "_mb_whole": whole}
    )
    parsed = F.from_csv(line, ", ".join(f"`{name}` STRING" for name in (*declared.fieldNames(), "_corrupt")), settings)
    found = lines.withColumn("_mb_csv", parsed).drop("value").select("*", "_mb_csv.*").drop("_mb_csv")
    rows = parse.csv_rows(found, declared, settings)
    problem = F.coalesce(F.col("_mb_whole"), F.col("_problem"))
    rows = rows.withColumn("_problem", problem).withColumn("_unparsed", F.when(problem.isNotNull(), F.col("_mb_line")))
    return rows.drop("_mb_line", "_mb_whole")
