"""What is wrong with the arguments of an expectation, as far as that shows without the columns.

Great Expectations turns the text '5' into 5.0, true into 1.0, lets a condition without a parser pass and takes a null
in a set for "no row ever fails", all without a word. Here each of them is a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from microbatch.checks.catalogue import SQL_RULE, SUPPORTED, UNIQUE, nearest
from microbatch.checks.predicate import predicate_of

_REPORTING = ("result_format", "catch_exceptions")  # how Great Expectations itself reports: no part of the rule
_BESIDE = ("severity", "meta", "id", "notes", "description", "type", "rendered_content")
_PARSERS = ("spark", "great_expectations", "great_expectations__experimental__")
_NEEDED = (
    "column", "column_A", "column_B", "column_list", "column_set", "value_set", "value_pairs_set", "regex",
    "regex_list", "type_", "type_list", "value", "sum_total", "unexpected_rows_query",
)  # fmt: skip
_TEXTS = ("column", "column_A", "column_B", "regex", "type_")
_LISTS = ("column_list", "value_set", "value_pairs_set", "regex_list", "type_list")

Fault = tuple[str | None, str]


def rule_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that make the rule; those that only say how Great Expectations reports are left out."""
    return {key: value for key, value in kwargs.items() if key not in _REPORTING}


def faults(kind: str, kwargs: Mapping[str, Any]) -> Iterator[Fault]:
    """Each fault as (argument or None, what is wrong). `kind` is a supported type."""
    known = SUPPORTED[kind]
    for key, value in rule_kwargs(kwargs).items():
        if key in _BESIDE:
            yield key, f"{key} belongs beside kwargs, not into it"
        elif key not in known:
            yield key, f"unknown argument {key}{nearest(key, known) or '; it takes ' + ', '.join(known)}"
        elif isinstance(value, dict) and "$PARAMETER" in value:
            yield key, f"{key} is a suite parameter ($PARAMETER), which is not supported; write the value"
    for key in known:
        if key in _NEEDED and kwargs.get(key) is None:
            yield None, f"{key} is missing"
        elif (key in _TEXTS and not isinstance(kwargs[key], str)) or kwargs.get(key) == "":
            yield key, f"{key} must be text that is not empty"
        elif key in _LISTS and not (isinstance(kwargs[key], list) and kwargs[key]):
            yield key, f"{key} must be a list that is not empty"
    yield from _mostly(kwargs)
    yield from _condition(kind, kwargs)
    yield from _sets(kwargs)
    if kind.endswith("_between"):
        yield from _bounds(kwargs)
    if kind == SQL_RULE and isinstance(kwargs.get("unexpected_rows_query"), str):
        try:
            predicate_of(kwargs["unexpected_rows_query"])
        except ValueError as cause:
            yield "unexpected_rows_query", str(cause)


def _mostly(kwargs: Mapping[str, Any]) -> Iterator[Fault]:
    mostly = kwargs.get("mostly")
    if "mostly" in kwargs and (isinstance(mostly, bool) or not isinstance(mostly, int | float) or not 0 <= mostly <= 1):
        yield "mostly", f"mostly must be a number from 0 to 1, not {mostly!r}; 0.95 means 95 % of the rows"


def _condition(kind: str, kwargs: Mapping[str, Any]) -> Iterator[Fault]:
    condition, parser = kwargs.get("row_condition"), kwargs.get("condition_parser")
    if condition is None:
        return
    if kind in UNIQUE:
        yield (
            "row_condition",
            (
                "uniqueness under a row_condition would count rows outside of it; take the condition out, "
                "or let the keys of an Upsert keep the table unique"
            ),
        )
    if not isinstance(condition, str):
        return
    if not condition.strip():
        yield "row_condition", "row_condition is empty; write a condition or leave it out"
    if parser not in _PARSERS:
        said = "condition_parser is missing" if parser is None else f"condition_parser {parser} is not for Spark"
        yield "row_condition", f"{said}; write condition_parser: spark"


def _sets(kwargs: Mapping[str, Any]) -> Iterator[Fault]:
    for key in ("value_set", "value_pairs_set"):
        values = kwargs.get(key)
        if not isinstance(values, list):
            continue
        if key == "value_set" and None in values:
            yield key, f"{key} holds a null, with which no row would ever fail; take it out, nulls are not looked at"
        if key == "value_pairs_set" and any(not isinstance(pair, list) or len(pair) != 2 for pair in values):
            yield key, f"{key} must be a list of pairs, for instance [[1, 2], [3, 4]]"


def _bounds(kwargs: Mapping[str, Any]) -> Iterator[Fault]:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is None and high is None:
        yield None, "min_value and max_value are both missing; give at least one"
    for key, bound in (("min_value", low), ("max_value", high)):
        if isinstance(bound, bool):
            yield key, f"{key} is {str(bound).lower()}, which would be taken as {float(bound)}; write a number"
        elif isinstance(bound, str) and _is_number(bound):
            yield key, f"{key} is the text '{bound}'; write the number without quotes"
        elif isinstance(bound, float) and bound != bound:
            yield key, f"{key} is not a number (NaN); write one"
    numbers = isinstance(low, int | float) and isinstance(high, int | float)
    if numbers or (isinstance(low, str) and isinstance(high, str)):
        strict = kwargs.get("strict_min") or kwargs.get("strict_max")
        if low > high or (low == high and strict):  # type: ignore[operator]
            yield "min_value", f"min_value {low} is not below max_value {high}, so no value could pass; change one"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
