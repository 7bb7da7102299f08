"""Reading a suite: every mistake at once, with its line, without Spark and without Great Expectations."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from microbatch import checks
from microbatch.checks.predicate import predicate_of
from microbatch.errors import ConfigError

NOT_NULL = "expect_column_values_to_not_be_null"
BETWEEN = "expect_column_values_to_be_between"
IN_SET = "expect_column_values_to_be_in_set"
SQL = "unexpected_rows_expectation"


def problems(make, *expectations) -> str:
    with pytest.raises(ConfigError) as raised:
        make(*expectations)
    return str(raised.value)


def test_a_suite_is_read_as_it_is_written(tmp_path):
    path = tmp_path / "expectations" / "sales.yml"
    path.parent.mkdir()
    path.write_text(
        "name: sales\n"
        "expectations:\n"
        f"  - type: {NOT_NULL}\n"
        "    kwargs: {column: id}\n"
        "    severity: warning\n"
        "    meta: {why: it is the key}\n"
        f"  - {{type: {BETWEEN}, kwargs: {{column: n, min_value: 1}}, id: n-is-positive}}\n"
    )
    file = checks.read(path, tmp_path)
    first, second = file.entries
    assert (file.name, file.path) == ("sales", "expectations/sales.yml")
    assert (first.id, first.severity, first.line, first.meta) == ("sales/1", "warning", 3, {"why": "it is the key"})
    assert (second.id, second.severity, second.position) == ("n-is-positive", "critical", 2)


def test_json_and_yaml_say_the_same(tmp_path):
    body = {"name": "sales", "expectations": [{"type": IN_SET, "kwargs": {"column": "s", "value_set": ["a", 1]}}]}
    (tmp_path / "a.json").write_text(json.dumps(body, indent=1))
    (tmp_path / "a.yml").write_text(
        "name: sales\nexpectations:\n  - type: " + IN_SET + "\n    kwargs: {column: s, value_set: [a, 1]}\n"
    )
    from_json, from_yaml = (checks.read(tmp_path / name, tmp_path).entries for name in ("a.json", "a.yml"))
    assert from_json[0].line == 4
    assert [(e.type, e.kwargs, e.severity, e.id) for e in from_json] == [
        (e.type, e.kwargs, e.severity, e.id) for e in from_yaml
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"name": "a",\n "expectations": [}', "a.json:2: is not valid JSON"),
        ('{"name": "a", "name": "b", "expectations": []}', "name is there twice"),
        ('{"name": "a", "expectations": [{"type": NaN}]}', "NaN is not JSON"),
        ("[]", "must be a mapping"),
    ],
)
def test_json_is_read_strictly(tmp_path, text, said):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ConfigError, match=said.replace("[", r"\[")):
        checks.read(tmp_path / "a.json", tmp_path)


def test_a_missing_file_is_a_problem_and_not_a_traceback(tmp_path):
    for name in ("a.json", "a.yml"):
        with pytest.raises(ConfigError, match=f"{name}: "):
            checks.read(tmp_path / name, tmp_path)


def test_all_mistakes_of_a_suite_are_told_at_once_each_with_its_line(tmp_path):
    path = tmp_path / "sales.yml"
    path.write_text(
        "name: sales\n"
        "expectation: 1\n"
        "expectations:\n"
        f"  - type: {NOT_NULL}s\n"
        "    kwargs: {column: id}\n"
        f"  - type: {NOT_NULL}\n"
        "    kwargs: {colum: id}\n"
        "    severity: Critical\n"
    )
    with pytest.raises(ConfigError) as raised:
        checks.read(path, tmp_path)
    assert str(raised.value).splitlines() == [
        "sales.yml:2: unknown key expectation; did you mean expectations?",
        f"sales.yml:4: unknown type {NOT_NULL}s; did you mean {NOT_NULL}?",
        f"sales.yml:7: {NOT_NULL}: unknown argument colum; did you mean column?",
        f"sales.yml:7: {NOT_NULL}: column is missing",
        "sales.yml:8: unknown severity Critical; did you mean critical?",
    ]


REFUSALS = {
    "a type in CamelCase": (("ExpectColumnValuesToNotBeNull", {"column": "s"}), f"did you mean {NOT_NULL}?"),
    "a key of another version": (
        {"expectation_type": NOT_NULL, "kwargs": {"column": "s"}},
        "Great Expectations 1 calls it type",
    ),
    "an unknown key": ({"type": NOT_NULL, "kwargs": {"column": "s"}, "sevrity": "info"}, "did you mean severity?"),
    "windows, which Great Expectations drops": (
        {"type": NOT_NULL, "kwargs": {"column": "s"}, "windows": []},
        "unknown key windows",
    ),
    "severity fatal": (
        {"type": NOT_NULL, "kwargs": {"column": "s"}, "severity": "fatal"},
        "write one of critical, warning, info",
    ),
    "severity inside kwargs": ((NOT_NULL, {"column": "s", "severity": "info"}), "belongs beside kwargs"),
    "mostly above 1": ((NOT_NULL, {"column": "s", "mostly": 95}), "mostly must be a number from 0 to 1, not 95"),
    "mostly as text": ((NOT_NULL, {"column": "s", "mostly": "0.9"}), "mostly must be a number"),
    "no column": ((NOT_NULL, {}), "column is missing"),
    "a bound as text": ((BETWEEN, {"column": "n", "min_value": "5"}), "write the number without quotes"),
    "a bound that is true": ((BETWEEN, {"column": "n", "min_value": True}), "would be taken as 1.0"),
    "no bounds": ((BETWEEN, {"column": "n"}), "give at least one"),
    "a row count without bounds": (("expect_table_row_count_to_be_between", {}), "give at least one"),
    "bounds that cross": ((BETWEEN, {"column": "n", "min_value": 2, "max_value": 1}), "no value could pass"),
    "bounds that leave nothing": (
        (BETWEEN, {"column": "n", "min_value": 2, "max_value": 2, "strict_min": True}),
        "no value could pass",
    ),
    "a null in a set": (
        (IN_SET, {"column": "s", "value_set": ["a", None]}),
        "holds a null, with which no row would ever fail",
    ),
    "an empty set": ((IN_SET, {"column": "s", "value_set": []}), "must be a list that is not empty"),
    "a suite parameter": ((BETWEEN, {"column": "n", "min_value": {"$PARAMETER": "low"}}), "suite parameter"),
    "a condition without a parser": (
        (NOT_NULL, {"column": "s", "row_condition": "n > 1"}),
        "write condition_parser: spark",
    ),
    "a condition for pandas": (
        (NOT_NULL, {"column": "s", "row_condition": "n > 1", "condition_parser": "pandas"}),
        "is not for Spark",
    ),
    "uniqueness under a condition": (
        ("expect_column_values_to_be_unique", {"column": "n", "row_condition": "n > 1", "condition_parser": "spark"}),
        "would count rows outside of it",
    ),
    "a Python function": (("expect_column_values_to_match_strftime_format", {"column": "s"}), "Python function"),
    "the order of rows": (("expect_column_values_to_be_increasing", {"column": "n"}), "order of rows"),
    "the rows themselves": (
        ("expect_column_median_to_be_between", {"column": "n", "min_value": 1}),
        "needs the rows themselves",
    ),
    "SQL of another shape": (
        (SQL, {"unexpected_rows_query": "SELECT id FROM {batch}"}),
        "write SELECT * FROM {batch} WHERE",
    ),
}


@pytest.mark.parametrize(("expectation", "said"), REFUSALS.values(), ids=REFUSALS.keys())
def test_what_great_expectations_would_take_without_a_word_is_refused(suite, expectation, said):
    assert said in problems(suite, expectation)


def test_a_suite_without_expectations_and_doubled_ones_are_refused(suite):
    assert "has no expectations" in problems(suite)
    assert "is there twice, first on line 3" in problems(
        suite, (NOT_NULL, {"column": "s"}), (NOT_NULL, {"column": "s"})
    )
    first, second = ({"type": NOT_NULL, "kwargs": {"column": name}, "id": "x"} for name in "ab")
    assert "id x is there twice" in problems(suite, first, second)


@pytest.mark.parametrize(
    ("query", "predicate"),
    [
        ("SELECT * FROM {batch} WHERE a > 1", "a > 1"),
        ("select  *\n from {batch}\n\twhere (a > 1);; \n", "(a > 1)"),
        ("/* why /* nested */ */ SELECT * FROM {batch} WHERE a = '--' -- end", "a = '--'"),
        (
            "SELECT * FROM {batch} WHERE a = 'it''s; WHERE \\' x' OR `order by` > 1",
            "a = 'it''s; WHERE \\' x' OR `order by` > 1",
        ),
        ("SELECT * FROM {batch} WHERE a RLIKE '^x{{2}}$' AND limit > 1", "a RLIKE '^x{2}$' AND limit > 1"),
    ],
)
def test_the_condition_of_an_sql_rule_is_found(query, predicate):
    assert predicate_of(query) == predicate


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM {batch}",
        "SELECT a FROM {batch} WHERE a > 1",
        "SELECT * FROM sales WHERE a > 1",
        "SELECT * FROM {batch} b WHERE b.a > 1",
        "SELECT * FROM {batch} JOIN t USING (a) WHERE a > 1",
        "SELECT * FROM {batch} WHERE a > (SELECT max(a) FROM {batch})",
        "SELECT * FROM {batch} WHERE a > 1 UNION ALL SELECT * FROM {batch}",
        "SELECT * FROM {batch} WHERE a > 1 ORDER BY a",
        "SELECT * FROM {batch} WHERE a > 1 GROUP BY a",
        "SELECT * FROM {batch} WHERE a > 1 LIMIT 3",
        "SELECT * FROM {batch} WHERE row_number() OVER (ORDER BY a) > 1",
        "SELECT * FROM {batch} WHERE {batch}.a > 1",
        "SELECT * FROM {batch} WHERE a > 1; DROP TABLE t",
        "SELECT * FROM {batch} WHERE a RLIKE 'x{2}'",
        "SELECT * FROM {batch} WHERE a = 'open",
        "SELECT * FROM {batch} WHERE a > 1 /* open",
        "WITH t AS (SELECT 1) SELECT * FROM {batch} WHERE a > 1",
    ],
)
def test_an_sql_rule_of_any_other_shape_is_refused(query):
    with pytest.raises(ValueError, match="unexpected_rows_query"):
        predicate_of(query)


def test_reading_loads_neither_spark_nor_great_expectations():
    code = "import sys, microbatch.checks; print([m for m in ('pyspark', 'great_expectations') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_same_file_loads_in_great_expectations(tmp_path):
    from great_expectations.core.expectation_suite import ExpectationSuite

    body = {
        "name": "sales",
        "expectations": [
            {"type": NOT_NULL, "kwargs": {"column": "s", "mostly": 0.9}, "severity": "warning", "meta": {"why": "x"}},
            {"type": SQL, "kwargs": {"unexpected_rows_query": "SELECT * FROM {batch} WHERE n < 0"}},
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(body))
    ours = checks.read(tmp_path / "a.json", tmp_path)
    theirs = ExpectationSuite(**body)
    assert [e.expectation_type for e in theirs.expectations] == [entry.type for entry in ours.entries]
    assert [e.severity.value for e in theirs.expectations] == [entry.severity for entry in ours.entries]
