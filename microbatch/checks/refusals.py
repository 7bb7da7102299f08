"""Why an expectation cannot be held against these columns, in words for the author of the suite."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ByteType, DecimalType, IntegerType, LongType, ShortType, StructType

from microbatch.checks.catalogue import nearest
from microbatch.checks.engine import NeedsRows
from microbatch.checks.suite import Entry
from microbatch.checks.wording import columns_of

EXACT = 2**53  # Great Expectations keeps bounds as doubles; above this they skip whole numbers
_SCHEMA_ONLY = ("expect_column_to_exist", "expect_table_columns_to_match_ordered_list")
_CLOCK = {"CurrentTimestamp", "CurrentDate", "CurrentTime", "Now", "LocalTimestamp", "CurrentTimestampLike"}
_CODE = re.compile(r"\[([A-Z][A-Z0-9_.]+)\]\s*(.+?)(?:\s*SQLSTATE|\n|$)", re.DOTALL)
_LONGEST_REASON = 300  # characters


def by_schema(entry: Entry, schema: StructType) -> Iterator[str]:
    """What Great Expectations would not say, or not clearly: missing columns, and bounds that a double cannot hold."""
    types = {field.name.lower(): field.dataType for field in schema.fields}
    if entry.type not in _SCHEMA_ONLY:
        for name in map(str, columns_of(entry.kwargs)):
            if name.lower() not in types:
                yield _no_column(name, schema.names)
    column = entry.kwargs.get("column")
    whole = isinstance(types.get(str(column).lower()), ByteType | ShortType | IntegerType | LongType | DecimalType)
    for key in ("min_value", "max_value"):
        bound = entry.kwargs.get(key)
        if isinstance(bound, int | float) and abs(bound) > EXACT and (whole or "_count_" in entry.type):
            yield (
                f"{key} {bound} is beyond 2**53, where Great Expectations, which keeps bounds as doubles, is no longer "
                f"exact; use unexpected_rows_expectation with a condition in SQL"
            )


class Seen(NamedTuple):
    """What Spark's analysis of a condition tells: why it must be refused, and whether it looks at other rows."""

    reason: str | None
    window: bool


def by_plan(empty: DataFrame, condition: Column, domain: Column | None, is_predicate: bool) -> Seen:
    """Look for functions of Python, chance, clocks, subqueries and windows in an analysed condition. Runs no job.

    Raises:
        AnalysisException: the condition does not fit the columns.
    """
    frames = [empty.select(condition.alias("failed"))]
    if is_predicate:
        frames.append(empty.filter(condition))  # refuses aggregates and what is not true or false, as a WHERE does
    if domain is not None:
        frames.append(empty.filter(domain))
    plans = [frame._jdf.queryExecution().analyzed() for frame in frames]
    classes = {name for plan in plans for name in re.findall(r'"class":"[\w.$]*?(\w+)"', plan.toJSON())}
    return Seen(_reason(classes, all(plan.deterministic() for plan in plans)), "WindowExpression" in classes)


def _reason(classes: set[str], deterministic: bool) -> str | None:
    if any("UDF" in name for name in classes):
        return "is a Python or user-defined function, row by row, and one bad row can fail the whole batch"
    if any("Subquery" in name or name in ("Exists", "ListQuery") for name in classes):
        return "holds a subquery, which needs more than the row itself; join in the transform instead"
    if classes & _CLOCK:
        return "depends on the time of the run, so the same row could pass once and fail once; compare with a column"
    if not deterministic:
        return "is not deterministic, so the same row could pass once and fail once; leave out rand, uuid and the like"
    return None


def explain(error: Exception, names: list[str]) -> str:
    """An error of Great Expectations or Spark as one sentence."""
    if isinstance(error, NeedsRows):
        return f"cannot ride in the pass that writes: {error}"
    if isinstance(error, PySparkException):
        missing = _unresolved(error)
        if missing:
            return _no_column(missing, names)
    details = getattr(error, "errors", None)
    if callable(details):  # pydantic's ValidationError
        return "; ".join(dict.fromkeys(_field(detail) for detail in details()))
    text = str(error)
    found = _CODE.search(text)
    told = found.group(2) if found else text.strip().partition("\n")[0]
    return _short(told) or type(error).__name__


def at_run_time(error: Exception, names: list[str]) -> str:
    """A failure of the made-up row: what the first bad row of a batch would do."""
    return f"would fail a batch: {explain(error, names)}"


def sample(schema: StructType, spark: Any) -> DataFrame:
    """One made-up row. 77 is rare enough not to be the first member of a set, where a comparison stops."""
    values = {"string": "'?'", "date": "'2000-01-01'", "timestamp": "'2000-01-01'", "timestamp_ntz": "'2000-01-01'"}
    plain = ("tinyint", "smallint", "int", "bigint", "float", "double", "decimal")
    columns = []
    for field in schema.fields:
        kind = field.dataType.simpleString()
        value = values.get(kind) or ("'77'" if kind.startswith(plain) else "true" if kind == "boolean" else "null")
        columns.append(F.expr(value).try_cast(field.dataType).alias(field.name))
    return spark.range(0, 1, 1, numPartitions=1).select(*columns)  # one partition: an aggregate needs no shuffle


def _no_column(name: str, names: list[str]) -> str:
    return f"there is no column {name}{nearest(name, names) or '; there are ' + ', '.join(names)}"


def _unresolved(error: PySparkException) -> str:
    if not (error.getCondition() or "").startswith("UNRESOLVED_COLUMN"):
        return ""
    return str((error.getMessageParameters() or {}).get("objectName", "")).strip("`")


def _field(detail: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in detail["loc"] if part != "__root__")
    return _short(f"{where}: {detail['msg']}" if where else str(detail["msg"]))


def _short(text: str) -> str:
    flat = " ".join(text.split()).rstrip(".")
    return flat if len(flat) <= _LONGEST_REASON else flat[: _LONGEST_REASON - 1] + "…"
