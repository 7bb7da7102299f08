"""The expectations that can be held against a micro-batch, and why the others cannot.

Names and arguments are those of Great Expectations 1.24. A test holds this page against its registry and against what
its own metric graph can give in one pass, so a name that is missing or misplaced here does not go unnoticed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SQL_RULE = "unexpected_rows_expectation"
SQL_SHAPE = "SELECT * FROM {batch} WHERE <what makes a row bad>"
NOT_NULL = "expect_column_values_to_not_be_null"
UNIQUE = ("expect_column_values_to_be_unique", "expect_compound_columns_to_be_unique")

_ROWS = ("mostly", "row_condition", "condition_parser")
_TABLE = ("row_condition", "condition_parser")
_BOUNDS = ("min_value", "max_value", "strict_min", "strict_max")
_PAIR = ("column_A", "column_B", "ignore_row_if", *_ROWS)
_LIST = ("column_list", "ignore_row_if", *_ROWS)

SUPPORTED: dict[str, tuple[str, ...]] = {
    NOT_NULL: ("column", *_ROWS),
    "expect_column_values_to_be_null": ("column", *_ROWS),
    "expect_column_values_to_be_between": ("column", *_BOUNDS, *_ROWS),
    "expect_column_values_to_be_in_set": ("column", "value_set", *_ROWS),
    "expect_column_values_to_not_be_in_set": ("column", "value_set", *_ROWS),
    "expect_column_value_lengths_to_be_between": ("column", *_BOUNDS, *_ROWS),
    "expect_column_value_lengths_to_equal": ("column", "value", *_ROWS),
    "expect_column_values_to_match_regex": ("column", "regex", *_ROWS),
    "expect_column_values_to_not_match_regex": ("column", "regex", *_ROWS),
    "expect_column_values_to_match_regex_list": ("column", "regex_list", "match_on", *_ROWS),
    "expect_column_values_to_not_match_regex_list": ("column", "regex_list", *_ROWS),
    "expect_column_values_to_be_unique": ("column", *_ROWS),
    "expect_column_values_to_be_of_type": ("column", "type_", *_ROWS),
    "expect_column_values_to_be_in_type_list": ("column", "type_list", *_ROWS),
    "expect_column_pair_values_a_to_be_greater_than_b": ("or_equal", *_PAIR),
    "expect_column_pair_values_to_be_equal": _PAIR,
    "expect_column_pair_values_to_be_in_set": ("value_pairs_set", *_PAIR),
    "expect_multicolumn_sum_to_equal": ("sum_total", *_LIST),
    "expect_multicolumn_values_to_be_equal": _LIST,
    "expect_select_column_values_to_be_unique_within_record": _LIST,
    "expect_compound_columns_to_be_unique": _LIST,
    "expect_column_max_to_be_between": ("column", *_BOUNDS, *_TABLE),
    "expect_column_mean_to_be_between": ("column", *_BOUNDS, *_TABLE),
    "expect_column_min_to_be_between": ("column", *_BOUNDS, *_TABLE),
    "expect_column_sum_to_be_between": ("column", *_BOUNDS, *_TABLE),
    "expect_column_stdev_to_be_between": ("column", *_BOUNDS, *_TABLE),
    "expect_column_proportion_of_non_null_values_to_be_between": ("column", *_BOUNDS, *_TABLE),
    "expect_column_proportion_of_unique_values_to_be_between": ("column", *_BOUNDS, *_TABLE),
    "expect_column_unique_value_count_to_be_between": ("column", *_BOUNDS, *_TABLE),
    "expect_column_to_exist": ("column", "column_index"),
    "expect_column_type_to_be": ("column", "type_"),
    "expect_table_row_count_to_be_between": (*_BOUNDS, *_TABLE),
    "expect_table_row_count_to_equal": ("value", *_TABLE),
    "expect_table_column_count_to_be_between": ("min_value", "max_value"),
    "expect_table_column_count_to_equal": ("value",),
    "expect_table_columns_to_match_ordered_list": ("column_list",),
    "expect_table_columns_to_match_set": ("column_set", "exact_match"),
    SQL_RULE: ("unexpected_rows_query",),
}
"""Type -> the arguments that it knows."""

_UDF = "is a Python function called row by row, and one bad row can fail the whole batch; "
_READS = "needs the rows themselves, not counts; "
_ORDER = "depends on the order of rows, which Spark does not keep; leave it out"
_LIKE = "has no Spark implementation in Great Expectations; use expect_column_values_to_{} instead"
_SET = "use expect_column_values_to_be_in_set, which holds each row against the set"
_GONE = "is not usable in this version of Great Expectations; leave it out"

REFUSED: dict[str, str] = {
    "expect_column_values_to_match_strftime_format": _UDF + "use expect_column_values_to_match_regex",
    "expect_column_values_to_be_json_parseable": _UDF
    + f"use {SQL_RULE} with <column> IS NOT NULL AND try_parse_json(<column>) IS NULL",
    "expect_column_values_to_match_json_schema": _UDF + f"use {SQL_RULE} over get_json_object",
    "expect_column_value_z_scores_to_be_less_than": "needs the mean of the whole batch before it can judge a row; "
    "use expect_column_values_to_be_between",
    "expect_column_values_to_not_be_outliers": "needs the spread of the whole batch before it can judge a row; "
    "use expect_column_values_to_be_between",
    "expect_column_values_to_be_increasing": _ORDER,
    "expect_column_values_to_be_decreasing": _ORDER,
    "expect_column_median_to_be_between": _READS + "use expect_column_mean_to_be_between",
    "expect_column_quantile_values_to_be_between": _READS
    + "use expect_column_min_to_be_between and expect_column_max_to_be_between",
    "expect_column_distinct_values_to_be_in_set": _READS + _SET,
    "expect_column_distinct_values_to_contain_set": _READS + "use expect_column_unique_value_count_to_be_between",
    "expect_column_distinct_values_to_equal_set": _READS + _SET,
    "expect_column_most_common_value_to_be_in_set": _READS + _SET,
    "expect_column_kl_divergence_to_be_less_than": _READS + "leave it out",
    "expect_table_row_count_to_equal_other_table": "needs another table; leave it out",
    "expect_query_results_to_match_comparison": "needs another table; leave it out",
    "expect_column_values_to_match_like_pattern": _LIKE.format("match_regex"),
    "expect_column_values_to_match_like_pattern_list": _LIKE.format("match_regex_list"),
    "expect_column_values_to_not_match_like_pattern": _LIKE.format("not_match_regex"),
    "expect_column_values_to_not_match_like_pattern_list": _LIKE.format("not_match_regex_list"),
    "expect_column_values_to_be_dateutil_parseable": _LIKE.format("match_regex"),
    "expect_multicolumn_values_to_be_unique": "is broken in Great Expectations 1.24; "
    "use expect_select_column_values_to_be_unique_within_record",
    "expect_column_chisquare_test_p_value_to_be_greater_than": _GONE,
    "expect_column_pair_cramers_phi_value_to_be_less_than": _GONE,
    "expect_column_bootstrapped_ks_test_p_value_to_be_greater_than": _GONE,
    "expect_column_parameterized_distribution_ks_test_p_value_to_be_greater_than": _GONE,
}
"""Type -> why it cannot ride in the pass that writes, and what to do."""


def nearest(given: str, known: Iterable[str]) -> str:
    """`; did you mean <name>?`, or nothing where no known name is near."""
    folded = {name.lower(): name for name in known}
    found = difflib.get_close_matches(given.lower(), folded, n=1, cutoff=0.6)
    return f"; did you mean {folded[found[0]]}?" if found else ""
