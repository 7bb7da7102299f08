"""What an expectation demands, in words: for letters, stops and alerts. Made from its type and arguments alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from microbatch.checks.catalogue import SQL_RULE
from microbatch.checks.predicate import predicate_of
from microbatch.outcome import HIDDEN, masks

if TYPE_CHECKING:
    from pyspark.sql import Column

LONGEST_VALUE = 100  # characters of a found value: enough to recognise it, and a letter stays a letter
_LONGEST_LIST = 10  # items of a set that are shown
_PREFIXES = (
    "expect_select_column_values_to_", "expect_column_values_to_", "expect_compound_columns_to_",
    "expect_multicolumn_values_to_",
)  # fmt: skip
_SHOWN_OTHERWISE = {
    "column", "column_A", "column_B", "column_list", "mostly", "condition_parser", "row_condition", "ignore_row_if",
    "min_value", "max_value", "strict_min", "strict_max", "or_equal", "result_format", "catch_exceptions",
}  # fmt: skip


_PLAIN = {"value", "value_set", "value_pairs_set", "regex", "regex_list", "type_", "type_list", "column_set"}


def columns_of(kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns whose values an expectation looks at; empty for one about the table."""
    if "column" in kwargs:
        return (kwargs["column"],)
    if "column_A" in kwargs:
        return kwargs["column_A"], kwargs["column_B"]
    return tuple(kwargs.get("column_list") or ())


def requirement(kind: str, kwargs: Mapping[str, Any]) -> str:
    """For instance "amount must be greater than 0". An SQL rule says what the row must not be."""
    if kind == SQL_RULE:
        return f"the row must not satisfy {' '.join(predicate_of(kwargs['unexpected_rows_query']).split())}"
    subject, demand = _subject_and_demand(kind, kwargs)
    where = kwargs.get("row_condition")
    return f"{subject} must {demand}{f' where {where}' if isinstance(where, str) else ''}"


def message(required: str, columns: Iterable[str], masked: Sequence[str]) -> Column:
    """The sentence with the values that were found in the row; `***` for those of masked columns."""
    from pyspark.sql import functions as F

    names = tuple(columns)
    parts = [F.lit(f"{required}, found ")]
    for position, name in enumerate(names):
        label = "" if len(names) == 1 else f"{', ' if position else ''}{name} "
        text = F.substring(F.col(quoted(name)).cast("string"), 1, LONGEST_VALUE)
        value = F.lit(HIDDEN) if masks(masked, [name]) else F.coalesce(text, F.lit("null"))
        parts.append(F.concat(F.lit(label), value))
    return F.concat(*parts) if names else F.lit(required)


def quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def _subject_and_demand(kind: str, kwargs: Mapping[str, Any]) -> tuple[str, str]:
    subject = ", ".join(columns_of(kwargs)) or "the table"
    if "_pair_values_a_to_be_greater" in kind:
        return kwargs[
            "column_A"
        ], f"be greater than {'or equal to ' if kwargs.get('or_equal') else ''}{kwargs['column_B']}"
    if kind == "expect_column_pair_values_to_be_equal":
        return kwargs["column_A"], f"equal {kwargs['column_B']}"
    if kind == "expect_multicolumn_sum_to_equal":
        return f"the sum of {subject}", f"equal {_value(kwargs['sum_total'])}"
    if kind.startswith("expect_column_value_lengths_to_"):
        subject = f"the length of {subject}"
    prefix = next((prefix for prefix in _PREFIXES if kind.startswith(prefix)), None)
    words = kind.removeprefix(prefix) if prefix else kind.rpartition("_to_")[2]
    if prefix is None and kind.startswith(("expect_table_", "expect_column_")) and "_value_lengths_" not in kind:
        subject = _measure(kind, kwargs)
    if words == "be_between":
        return subject, _between(kwargs)
    given = {key: value for key, value in kwargs.items() if key not in _SHOWN_OTHERWISE}
    if kind.startswith("expect_table_") and "column_list" in kwargs:
        given["column_set"] = kwargs["column_list"]
    said = [_value(value) if key in _PLAIN else f"({key} {_value(value)})" for key, value in given.items()]
    rest = " ".join(said)
    words = words.replace("be_in_set", "be one of").replace("be_in_type_list", "be of one of the types")
    return subject, f"{words.replace('_', ' ')}{f' {rest}' if rest else ''}"


def _measure(kind: str, kwargs: Mapping[str, Any]) -> str:
    """What a table-level expectation measures: "row count of the table", "mean of amount"."""
    name = kind.removeprefix("expect_table_").removeprefix("expect_column_").rpartition("_to_")[0]
    of = ", ".join(columns_of(kwargs)) if kind.startswith("expect_column_") else "the table"
    return f"{name.replace('_', ' ')} of {of}" if name and not name.startswith("pair") else of


def _between(kwargs: Mapping[str, Any]) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    above = "greater than" if kwargs.get("strict_min") else "at least"
    below = "less than" if kwargs.get("strict_max") else "at most"
    said = [f"{word} {_value(bound)}" for word, bound in ((above, low), (below, high)) if bound is not None]
    return f"be {' and '.join(said)}"


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        items = [f"({_value(item)})" if isinstance(item, list | tuple) else _value(item) for item in value]
        shown = ", ".join(items[:_LONGEST_LIST])
        return f"{shown}, … ({len(value)} in all)" if len(value) > _LONGEST_LIST else shown
    return "null" if value is None else str(value)
