"""Every supported expectation, on columns that hold nulls, NaN and repeated values."""

from __future__ import annotations

import random
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from pyspark.sql import DataFrame

SCHEMA = (
    "id BIGINT, n BIGINT, x DOUBLE, y DOUBLE, price DECIMAL(10,2), s STRING, t STRING, d DATE, ts TIMESTAMP, i INT, "
    "`odd name` STRING"
)
WHERE = {"row_condition": "n > 3", "condition_parser": "spark"}
GX_WHERE = {"row_condition": 'col("n") > 3', "condition_parser": "great_expectations"}
OBJECT_WHERE = {
    "row_condition": {"type": "comparison", "column": {"name": "n"}, "operator": ">", "parameter": 3},
}

_ROW: list[tuple[str, dict[str, Any]]] = [
    ("values_to_not_be_null", {"column": "s"}),
    ("values_to_not_be_null", {"column": "s", "mostly": 0.5}),
    ("values_to_be_null", {"column": "s", "mostly": 0.1}),
    ("values_to_be_between", {"column": "n", "min_value": 2}),
    ("values_to_be_between", {"column": "x", "min_value": 1, "max_value": 5, "strict_min": True, "strict_max": True}),
    ("values_to_be_between", {"column": "price", "max_value": 7.5, "mostly": 0.9}),
    ("values_to_be_between", {"column": "d", "min_value": "2024-01-05", "max_value": "2024-01-20"}),
    ("values_to_be_between", {"column": "ts", "min_value": "2024-01-05T12:00:00"}),
    ("values_to_be_in_set", {"column": "s", "value_set": ["a", "bb"]}),
    ("values_to_be_in_set", {"column": "n", "value_set": [1, 2, 3]}),
    ("values_to_not_be_in_set", {"column": "s", "value_set": ["a"]}),
    ("value_lengths_to_be_between", {"column": "s", "min_value": 2, "max_value": 3}),
    ("value_lengths_to_equal", {"column": "s", "value": 2}),
    ("values_to_match_regex", {"column": "s", "regex": "^[ab]+$"}),
    ("values_to_not_match_regex", {"column": "s", "regex": "c{2}"}),
    ("values_to_match_regex_list", {"column": "s", "regex_list": ["^a", "b$"], "match_on": "any"}),
    ("values_to_match_regex_list", {"column": "s", "regex_list": ["^a", "a$"], "match_on": "all"}),
    ("values_to_not_match_regex_list", {"column": "s", "regex_list": ["^a", "cc"]}),
    ("values_to_be_unique", {"column": "n"}),
    ("values_to_be_unique", {"column": "odd name"}),
    ("values_to_be_of_type", {"column": "n", "type_": "LongType"}),
    ("values_to_be_in_type_list", {"column": "s", "type_list": ["LongType", "StringType"]}),
    ("pair_values_a_to_be_greater_than_b", {"column_A": "x", "column_B": "y"}),
    (
        "pair_values_a_to_be_greater_than_b",
        {"column_A": "x", "column_B": "y", "or_equal": True, "ignore_row_if": "neither"},
    ),
    ("pair_values_to_be_equal", {"column_A": "s", "column_B": "t", "ignore_row_if": "either_value_is_missing"}),
    ("pair_values_to_be_in_set", {"column_A": "s", "column_B": "t", "value_pairs_set": [["a", "a"], ["bb", "a"]]}),
]
_MULTI: list[tuple[str, dict[str, Any]]] = [
    ("multicolumn_sum_to_equal", {"column_list": ["n", "i"], "sum_total": 6}),
    ("multicolumn_values_to_be_equal", {"column_list": ["s", "t"], "ignore_row_if": "any_value_is_missing"}),
    ("multicolumn_values_to_be_equal", {"column_list": ["s", "t"], "ignore_row_if": "never"}),
    ("select_column_values_to_be_unique_within_record", {"column_list": ["n", "i"]}),
    ("compound_columns_to_be_unique", {"column_list": ["n", "s"]}),
    ("compound_columns_to_be_unique", {"column_list": ["n", "s"], "ignore_row_if": "any_value_is_missing"}),
]
_TABLE: list[tuple[str, dict[str, Any]]] = [
    ("column_max_to_be_between", {"column": "x", "max_value": 8}),
    ("column_max_to_be_between", {"column": "n", "min_value": 1, "max_value": 100}),
    ("column_min_to_be_between", {"column": "price", "min_value": 1}),
    ("column_min_to_be_between", {"column": "d", "min_value": "2024-01-01", "max_value": "2024-02-01"}),
    ("column_mean_to_be_between", {"column": "n", "min_value": 2, "max_value": 6}),
    ("column_mean_to_be_between", {"column": "price", "min_value": 2, "max_value": 3}),
    ("column_sum_to_be_between", {"column": "n", "min_value": 0}),
    ("column_sum_to_be_between", {"column": "price", "min_value": 0, "max_value": 10}),
    ("column_stdev_to_be_between", {"column": "i", "min_value": 0, "max_value": 10}),
    ("column_proportion_of_non_null_values_to_be_between", {"column": "s", "min_value": 0.5}),
    ("column_proportion_of_unique_values_to_be_between", {"column": "n", "min_value": 0.01, "max_value": 0.5}),
    ("column_unique_value_count_to_be_between", {"column": "s", "min_value": 1, "max_value": 3}),
    ("table_row_count_to_be_between", {"min_value": 10, "max_value": 10_000}),
    ("table_row_count_to_equal", {"value": 12}),
]
_SCHEMA: list[tuple[str, dict[str, Any]]] = [
    ("column_to_exist", {"column": "n"}),
    ("column_to_exist", {"column": "nothing"}),
    ("column_to_exist", {"column": "n", "column_index": 0}),
    ("column_type_to_be", {"column": "n", "type_": "LongType"}),
    ("table_column_count_to_equal", {"value": 11}),
    ("table_column_count_to_be_between", {"min_value": 20}),
    ("table_columns_to_match_set", {"column_set": ["n", "s"], "exact_match": False}),
    ("table_columns_to_match_set", {"column_set": ["n", "s", "zz"]}),
    ("table_columns_to_match_ordered_list", {"column_list": ["id", "n"]}),
]
_SQL = [
    "SELECT * FROM {batch} WHERE n > 4",
    "select *\nfrom {batch} -- the rows\nwhere s = 'a;b' or (x < y /* null is not true */ and t rlike '^a{{1,2}}$');",
    "SELECT * FROM {batch} WHERE false",
]


def _name(kind: str) -> str:
    return (
        f"expect_{kind}"
        if kind.startswith(("table", "multi", "select", "compound", "column_"))
        else f"expect_column_{kind}"
    )


def without_condition() -> list[tuple[str, dict[str, Any]]]:
    listed = [(_name(kind), kwargs) for kind, kwargs in (*_ROW, *_MULTI, *_TABLE, *_SCHEMA)]
    return [*listed, *(("unexpected_rows_expectation", {"unexpected_rows_query": query}) for query in _SQL)]


def with_condition() -> list[tuple[str, dict[str, Any]]]:
    # Great Expectations itself leaves the condition of a set of pairs out: that one is refused.
    kinds = [
        (_name(kind), kwargs)
        for kind, kwargs in (*_ROW, *_MULTI, *_TABLE)
        if ("be_unique" not in kind or "within" in kind) and "value_pairs_set" not in kwargs
    ]
    plain = [(kind, {**kwargs, **WHERE}) for kind, kwargs in kinds]
    others = [
        (kind, {**kwargs, **where}) for where in (GX_WHERE, OBJECT_WHERE) for kind, kwargs in (*kinds[:4], kinds[-1])
    ]
    return [*plain, *others]


def rows(seed: int, count: int) -> list[tuple[Any, ...]]:
    """Random rows of SCHEMA; about one value in five is null, some doubles are NaN."""
    dice = random.Random(seed)

    def maybe(value: Any) -> Any:
        return None if dice.random() < 0.2 else value

    def number() -> float:
        return float("nan") if dice.random() < 0.1 else round(dice.uniform(0, 9), 1)

    words = ["a", "bb", "ccc", "ab", "a;b", ""]
    return [
        (
            identity,
            maybe(dice.randint(0, 8)),
            maybe(number()),
            maybe(number()),
            maybe(Decimal(dice.randint(0, 1000)) / 100),
            maybe(dice.choice(words)),
            maybe(dice.choice(words)),
            maybe(date(2024, 1, dice.randint(1, 28))),
            maybe(datetime(2024, 1, dice.randint(1, 28), dice.randint(0, 23))),
            maybe(dice.randint(0, 6)),
            maybe(dice.choice(words)),
        )
        for identity in range(count)
    ]


def numbers(plan: Any, judged: DataFrame) -> dict[str, Any]:
    """What the engine counts: one aggregate for what rides in the pass, one for the rest."""
    values: dict[str, Any] = {}
    for columns in (plan.metrics(), plan.late()):
        if columns:
            values |= judged.agg(*columns).first().asDict()
    return values


def failed_rows(plan: Any, df: DataFrame, key: str) -> set[Any]:
    return {row[0] for row in plan.judge(df).filter(plan.leaves).select(key).collect()}
