"""Changes of a database as Debezium writes them: the row before or after, what happened to it, and when.

`_op` is insert (also a row of the first snapshot), update or delete. `_lsn` is the position of the change in the database's
own log, where that is a number: PostgreSQL's lsn, the file and position of a MySQL binlog, Oracle's scn; null elsewhere.
`_offset` is that of the message: changes of one row are in one partition, in their order, and may share an `_lsn`. So
`newest_by=["_lsn", "_offset"]` is right for every database, as long as no partitions are added.

Source:
    Debezium manual, "Data change events" of each connector; "Toasted values" for what an update did not carry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from microbatch.sink.tables import ORDER
from microbatch.sources import parse, written

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import StructType

ENVELOPE = "op STRING, before STRING, after STRING, source STRING"
WRAPPED = f"`_` ARRAY<STRUCT<payload STRING, {ENVELOPE}>>, `_end` BOOLEAN, `_corrupt` STRING"
SOURCE = "lsn BIGINT, pos BIGINT, file STRING, scn STRING, ts_ms BIGINT, ts_us BIGINT"
OPERATIONS = {"c": "insert", "r": "insert", "u": "update", "d": "delete"}
NOT_SENT = "__debezium_unavailable_value"
CHANGE = ("_op", "_lsn", "_committed_at")
FILE_BITS = 32  # a binlog file is smaller than 4 GiB


def rows(
    messages: DataFrame, declared: StructType, unknown_fields: str, options: Mapping[str, str], places: list[str]
) -> DataFrame:
    """The rows that changed, as `parse.json_lines` reads them, with `CHANGE`; tombstones are passed over.

    Args:
        messages: has `value` STRING, the envelope with its schema or without, beside columns that pass through.
        places: those of them that belong to the row.
    """
    told = _opened(messages.where("value IS NOT NULL"))
    change = _change().withField("row", F.when(F.col("_op") == "delete", _side("before")).otherwise(_side("after")))
    told = told.withColumn("_change", change).withColumn("_refused", _refusal())
    lines = told.withColumns(
        {
            "_message": F.make_valid_utf8("value"),
            # What has no row is refused whatever stands here.
            "value": F.coalesce(F.when(F.col("_refused").isNull(), F.col("_change.row")), F.lit("{}")),
            "_lsn": F.col("_change.lsn"),
            "_committed_at": F.col("_change.at"),
        }
    ).drop("_envelope", "_change")
    found = parse.json_lines(lines, declared, unknown_fields, options)
    problem = F.coalesce(F.col("_refused"), F.col(parse.PROBLEM))
    names = [*declared.fieldNames(), *(["_rescued"] if "_rescued" in found.columns else []), *CHANGE, *places]
    order = [F.col("_offset").alias(ORDER)] if "_offset" in places else []
    found = found.withColumn(parse.PROBLEM, problem).withColumns(
        {
            parse.UNPARSED: F.when(problem.isNotNull(), F.col("_message")),
            parse.ROW: F.struct(*[f"`{name}`" for name in names], *order),
        }
    )
    return found.drop("_refused", "_message")


def _opened(messages: DataFrame) -> DataFrame:
    """With `_envelope`, null where the message is not one whole object, and `_op`."""
    settings = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": "_corrupt"}
    text = F.concat(F.lit('{"_":['), F.col("value"), F.lit('],"_end":true}'))
    parsed = messages.withColumn("_json", F.from_json(text, WRAPPED, settings))
    closed = ~F.contains("value", F.lit("]")) | parse.is_closed("value")
    whole = (F.size("_json._") == 1) & F.col("_json._end") & closed
    outer = F.get("_json._", F.lit(0))
    inner = F.from_json(outer["payload"], ENVELOPE)
    bare = F.struct(*[outer[name].alias(name) for name in ("op", "before", "after", "source")])
    envelope = F.when(F.coalesce(whole, F.lit(False)), F.when(outer["payload"].isNotNull(), inner).otherwise(bare))
    opened = parsed.withColumn("_envelope", envelope).drop("_json")
    operations = F.create_map(*[F.lit(word) for pair in OPERATIONS.items() for word in pair])
    return opened.withColumn("_op", F.try_element_at(operations, F.col("_envelope.op")))


def _side(name: str) -> Column:
    """The row before or after as it stands in the message; where that is not found, with the numbers of its exact parse.

    What Spark cuts out of a document has lost digits of long numbers.
    """
    document = F.try_parse_json("value")
    part = F.coalesce(*[F.try_variant_get(document, f"$.{at}{name}", "variant") for at in ("payload.", "")])
    cut = F.col(f"_envelope.{name}")
    exact = F.when(part.isNull(), cut).otherwise(parse.exact_text(cut, part))
    envelope = F.coalesce(written.member(F.col("value"), "payload"), F.col("value"))
    said = written.member(envelope, name)
    return F.when(F.startswith(said, F.lit("{")) & cut.isNotNull(), said).otherwise(exact)


def _change() -> Column:
    """`lsn` and `at` of a change."""
    source = F.from_json("_envelope.source", SOURCE)
    number = F.regexp_extract(source["file"], r"(\d+)$", 1).try_cast("bigint")
    binlog = F.shiftleft(number, FILE_BITS) + source["pos"]
    at = F.coalesce(F.timestamp_micros(source["ts_us"]), F.timestamp_millis(source["ts_ms"]))
    return F.struct(F.coalesce(source["lsn"], binlog, source["scn"].try_cast("bigint")).alias("lsn"), at.alias("at"))


def _refusal() -> Column:
    """Why a message is no change of a row, or null."""
    op, row = F.col("_envelope.op"), F.col("_change.row")
    truncated = "the table was emptied (truncate): what it held is still here; backfill, or delete it"
    lost = f"an update did not carry all of its row ({NOT_SENT}): ALTER TABLE ... REPLICA IDENTITY FULL"
    side = F.when(F.col("_op") == "delete", F.lit("before")).otherwise(F.lit("after"))
    return (
        F.when(~F.is_valid_utf8("value"), F.concat(F.lit("not valid UTF-8; its bytes in base64: "), F.base64("value")))
        .when(F.col("_envelope").isNull(), F.lit("not one whole JSON object"))
        .when(op.isNull(), F.lit("not a Debezium envelope: it has no op"))
        .when(op == "t", F.lit(truncated))
        .when(F.col("_op").isNull(), F.concat(F.lit("not the change of a row: op is "), op))
        .when(row.isNull(), F.concat(F.lit("the change has no row: no "), side))
        .when(F.contains(row, F.lit(f'"{NOT_SENT}"')), F.lit(lost))
    )
