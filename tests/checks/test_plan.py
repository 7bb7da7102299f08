"""A suite over real columns: what is refused, what is judged, what stops a batch."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from pyspark.sql import Observation
from pyspark.sql import functions as F

from microbatch import checks
from microbatch.errors import ConfigError
from tests.checks.cases import failed_rows, numbers

NOT_NULL = "expect_column_values_to_not_be_null"
BETWEEN = "expect_column_values_to_be_between"
IN_SET = "expect_column_values_to_be_in_set"
UNIQUE = "expect_column_values_to_be_unique"
SQL = "unexpected_rows_expectation"
ROW_COUNT = "expect_table_row_count_to_be_between"
SALE = "id BIGINT, amount DECIMAL(10,2), store STRING, sold DATE, op STRING"
SPARK_WHERE = {"condition_parser": "spark"}


@pytest.fixture
def sales(spark):
    def make(*rows):
        listed = [(*row, *(None,) * (5 - len(row))) for row in rows]
        return spark.createDataFrame([(r[0], None if r[1] is None else Decimal(r[1]), *r[2:]) for r in listed], SALE)

    return make


def sql(condition: str) -> tuple[str, dict[str, str]]:
    return SQL, {"unexpected_rows_query": f"SELECT * FROM {{batch}} WHERE {condition}"}


REFUSALS = {
    "a misspelt column": ((NOT_NULL, {"column": "amout"}), "there is no column amout; did you mean amount?"),
    "a misspelt column of a pair": (
        ("expect_column_pair_values_to_be_equal", {"column_A": "store", "column_B": "opp"}),
        "there is no column opp; did you mean op?",
    ),
    "a misspelt column in SQL": (sql("amout < 0"), "there is no column amout; did you mean amount?"),
    "a misspelt column in a condition": (
        (NOT_NULL, {"column": "store", "row_condition": "amout > 0", **SPARK_WHERE}),
        "there is no column amout; did you mean amount?",
    ),
    "a condition that does not parse": (
        (NOT_NULL, {"column": "store", "row_condition": "amount >", **SPARK_WHERE}),
        "Syntax error",
    ),
    "SQL that does not parse": (sql("amount <"), "Syntax error"),
    "SQL with an alias": (sql("amount < 0 negative"), "Syntax error"),
    "SQL with crossed brackets": (sql("amount < 0) OR (amount > 5"), "Syntax error"),
    "SQL that is not true or false": (sql("amount"), "not a boolean"),
    "SQL with an aggregate": (sql("sum(amount) > 1"), "invalid expressions: sum(amount)"),
    "SQL that throws dice": (sql("rand() > 0.5"), "not deterministic"),
    "SQL that reads the clock": (sql("sold > current_date()"), "depends on the time of the run"),
    "SQL with an unknown function": (sql("amonut(store) > 1"), "amonut"),
    "text between numbers": (
        (BETWEEN, {"column": "store", "min_value": 1}),
        "expect_column_values_to_be_between store: ",
    ),
    "a number between dates": (
        (BETWEEN, {"column": "id", "min_value": "2024-01-01"}),
        "expect_column_values_to_be_between id: ",
    ),
    "a bound that is no date": ((BETWEEN, {"column": "sold", "min_value": "soon"}), "min_value"),
    "a bound beyond 2**53 on whole numbers": ((BETWEEN, {"column": "id", "max_value": 2**53 + 1}), "beyond 2**53"),
    "an unknown argument value": (
        ("expect_column_values_to_match_regex_list", {"column": "store", "regex_list": ["a"], "match_on": "some"}),
        "match_on",
    ),
    "a pattern that Java does not take": (
        ("expect_column_values_to_match_regex", {"column": "store", "regex": "["}),
        "would fail a batch",
    ),
    "text in a set of numbers": ((IN_SET, {"column": "store", "value_set": [1, 2]}), "would fail a batch"),
    "numbers in a set of text": ((IN_SET, {"column": "id", "value_set": ["1", "x"]}), "would fail a batch"),
    "a cast in SQL that ANSI mode makes fail": (sql("cast(store AS INT) > 1"), "would fail a batch"),
    "a condition that Great Expectations leaves out": (
        (
            "expect_column_pair_values_to_be_in_set",
            {
                "column_A": "store",
                "column_B": "op",
                "value_pairs_set": [["a", "b"]],
                "row_condition": "id > 1",
                **SPARK_WHERE,
            },
        ),
        "leaves out its row_condition",
    ),
    "the mean of text": (
        ("expect_column_mean_to_be_between", {"column": "store", "min_value": 1}),
        "numeric column type",
    ),
}


@pytest.mark.parametrize(("expectation", "said"), REFUSALS.values(), ids=REFUSALS.keys())
def test_what_cannot_be_held_against_the_columns_is_refused_with_file_and_line(suite, sales, expectation, said):
    with pytest.raises(ConfigError) as raised:
        checks.plan(suite(expectation), sales().limit(0))
    assert str(raised.value).startswith("sales.yml:3: ")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_all_refusals_are_told_at_once(suite, sales):
    file = suite((NOT_NULL, {"column": "a"}), (NOT_NULL, {"column": "store"}), (NOT_NULL, {"column": "b"}))
    with pytest.raises(ConfigError) as raised:
        checks.plan(file, sales().limit(0), not_null=["c"])
    assert [problem.where for problem in raised.value.problems] == ["sales.yml:3", "sales.yml:9", "keys"]


def test_several_faults_that_only_a_row_shows_are_told_at_once(suite, sales):
    file = suite(
        ("expect_column_values_to_match_regex", {"column": "store", "regex": "["}),
        (IN_SET, {"column": "store", "value_set": [1]}),
    )
    with pytest.raises(ConfigError) as raised:
        checks.plan(file, sales().limit(0))
    assert len(raised.value.problems) == 2


def test_critical_rows_leave_with_all_their_reasons_and_warnings_stay(suite, sales):
    file = suite(
        (BETWEEN, {"column": "amount", "min_value": 0, "strict_min": True}),
        {"type": IN_SET, "kwargs": {"column": "store", "value_set": ["a", "b"]}, "severity": "warning"},
        sql("op = 'x' and amount < 100"),
    )
    df = sales((1, "2.50", "a"), (2, "-3.00", "c"), (3, None, "c"), (4, "5", "a", None, "x"))
    plan = checks.plan(file, df.limit(0))
    judged = plan.judge(df)
    assert failed_rows(plan, df, "id") == {2, 4}
    letters = {
        row.id: row.reasons
        for row in judged.filter(plan.leaves).select("id", plan.reasons().alias("reasons")).collect()
    }
    assert [tuple(reason) for reason in letters[2]] == [
        (BETWEEN, "amount", "critical", "amount must be greater than 0, found -3.00"),
        (IN_SET, "store", "warning", "store must be one of a, b, found c"),
    ]
    assert [tuple(reason) for reason in letters[4]] == [
        (SQL, "amount,op", "critical", "the row must not satisfy op = 'x' and amount < 100, found amount 5.00, op x")
    ]
    results = plan.results(numbers(plan, judged))
    assert [(r.evaluated, r.unexpected, r.success) for r in results] == [(4, 1, False), (4, 2, False), (4, 1, False)]
    assert plan.stops(results) == ()
    assert plan.warnings(results) == (f"{IN_SET} (sales/2): store must be one of a, b; 2 of 4 rows break it",)


def test_a_masked_column_shows_no_value_and_a_long_one_is_cut(suite, sales):
    file = suite((IN_SET, {"column": "store", "value_set": ["a"]}), (IN_SET, {"column": "op", "value_set": ["a"]}))
    df = sales((1, None, "secret", None, "x" * 300))
    plan = checks.plan(file, df.limit(0), mask=["Store"])
    first, second = plan.judge(df).select(plan.reasons().alias("r")).first().r
    assert first.message == "store must be one of a, found ***"
    assert second.message == f"op must be one of a, found {'x' * 100}"


def test_every_supported_expectation_has_words(sales):
    from microbatch.checks.wording import requirement
    from tests.checks.cases import with_condition, without_condition

    said = [requirement(kind, kwargs) for kind, kwargs in (*without_condition(), *with_condition())]
    assert all(" must " in sentence and "expect" not in sentence and "_to_" not in sentence for sentence in said)
    assert "the length of s must be at least 2 and at most 3" in said
    assert "mean of n must be at least 2 and at most 6" in said
    assert "row count of the table must be at least 10 and at most 10000" in said


def test_mostly_given_stops_a_batch_and_not_given_it_does_not(suite, sales):
    df = sales((1, "1", "a"), (2, "1", None))
    for kwargs, stops in (({}, 0), ({"mostly": 1.0}, 1), ({"mostly": 0.9}, 1), ({"mostly": 0.5}, 0)):
        plan = checks.plan(suite((NOT_NULL, {"column": "store", **kwargs})), df.limit(0))
        results = plan.results(numbers(plan, plan.judge(df)))
        assert len(plan.stops(results)) == stops
        assert failed_rows(plan, df, "id") == {2}
    warning = {"type": NOT_NULL, "kwargs": {"column": "store", "mostly": 0.9}, "severity": "warning"}
    plan = checks.plan(suite(warning), df.limit(0))
    assert plan.stops(plan.results(numbers(plan, plan.judge(df)))) == ()


def test_a_critical_table_expectation_stops_a_batch_with_what_was_observed(suite, sales):
    df = sales((1, "1", "a"))
    plan = checks.plan(
        suite((ROW_COUNT, {"min_value": 2}), {"type": ROW_COUNT, "kwargs": {"min_value": 3}, "severity": "info"}),
        df.limit(0),
    )
    results = plan.results(numbers(plan, plan.judge(df)))
    assert [(r.observed, r.success, r.evaluated) for r in results] == [("1", False, None)] * 2
    assert plan.stops(results) == (f"{ROW_COUNT} (sales/1): row count of the table must be at least 2, observed 1",)


def test_a_key_is_never_null_whether_the_suite_says_so_or_not(suite, sales):
    df = sales((None, "1", "a"), (2, "1", None))
    covered = suite(
        (NOT_NULL, {"column": "ID"}), {"type": NOT_NULL, "kwargs": {"column": "store"}, "severity": "warning"}
    )
    plan = checks.plan(covered, df.limit(0), not_null=["id", "store"])
    assert [rule.expectation_id for rule in plan.rules] == ["sales/1", "sales/2", "key/store"]
    assert failed_rows(plan, df, "amount") == {Decimal("1.00")}
    alone = checks.plan(None, df.limit(0), not_null=["id"])
    assert failed_rows(alone, df, "id") == {None}
    assert alone.results(numbers(alone, alone.judge(df)))[0].expectation_id == "key/id"


def test_a_row_that_deletes_is_judged_by_its_keys_alone(suite, sales):
    file = suite(
        (NOT_NULL, {"column": "store"}),
        (BETWEEN, {"column": "amount", "min_value": 0}),
        sql("store IS NULL"),
        ("expect_column_mean_to_be_between", {"column": "amount", "min_value": 0}),
        ("expect_column_unique_value_count_to_be_between", {"column": "store", "max_value": 1}),
        (ROW_COUNT, {"min_value": 1}),
    )
    df = sales((1, "4", "a", None, "c"), (2, "-5", None, None, "D"), (None, "-5", "z", None, "D"), (4, "-1", None))
    plan = checks.plan(file, df.limit(0), not_null=["id"], only_keys_when="op = 'D'")
    assert failed_rows(plan, df, "id") == {None, 4}
    results = {r.expectation_id: r for r in plan.results(numbers(plan, plan.judge(df)))}
    assert [
        (results[name].evaluated, results[name].unexpected) for name in ("sales/1", "sales/2", "sales/3", "key/id")
    ] == [
        (2, 1),
        (2, 1),
        (2, 1),
        (4, 1),
    ]
    assert float(results["sales/4"].observed) == 1.5
    assert (results["sales/5"].observed, results["sales/6"].observed) == ("1", "4")


def test_uniqueness_beside_rows_that_delete_is_refused_except_on_keys(suite, sales):
    with pytest.raises(ConfigError, match="uniqueness would count the rows that delete"):
        checks.plan(suite((UNIQUE, {"column": "store"})), sales().limit(0), not_null=["id"], only_keys_when="op = 'D'")
    checks.plan(suite((UNIQUE, {"column": "id"})), sales().limit(0), not_null=["id"], only_keys_when="op = 'D'")


def test_a_wrong_delete_condition_is_a_problem_of_its_own(sales):
    with pytest.raises(ConfigError, match="delete_when: there is no column opp; did you mean op"):
        checks.plan(None, sales().limit(0), not_null=["id"], only_keys_when="opp = 'D'")


def test_more_rules_than_bits_take_a_second_mask(suite, sales):
    file = suite(*((BETWEEN, {"column": "id", "max_value": limit}) for limit in range(66)))
    df = sales((62, "1", "a"), (64, "1", "a"), (66, "1", "a"))
    plan = checks.plan(file, df.limit(0))
    assert plan.mask_columns == ("_failed_0", "_failed_1")
    counts = dict(plan.judge(df).select("id", F.size(plan.reasons())).collect())
    assert counts == {62: 62, 64: 64, 66: 66}
    assert plan.results(numbers(plan, plan.judge(df)))[63].unexpected == 2
    assert failed_rows(checks.plan(suite((BETWEEN, {"column": "id", "max_value": 65})), df.limit(0)), df, "id") == {66}


def test_nothing_to_check_is_fine(sales):
    df = sales((1, "1", "a"))
    plan = checks.plan(None, df.limit(0))
    judged = plan.judge(df)
    assert (plan.rules, plan.metrics(), plan.late(), plan.results({})) == ((), [], [], ())
    assert judged.select("_failed_0", plan.leaves, F.size(plan.reasons())).first()[:] == (0, False, 0)


def test_counts_ride_in_the_pass_that_writes_even_in_another_session(suite, sales, spark, tmp_path):
    file = suite(
        (NOT_NULL, {"column": "store"}),
        (UNIQUE, {"column": "amount"}),
        (NOT_NULL, {"column": "op", "row_condition": "amount > 1", **SPARK_WHERE}),
        ("expect_column_max_to_be_between", {"column": "sold", "max_value": "2030-01-01"}),
    )
    df = sales((1, "1", "a"), (2, "1", None), (3, "2", "b"))
    plan = checks.plan(file, df.limit(0))
    df.write.parquet(str(tmp_path / "rows"))
    other = spark.newSession().read.parquet(str(tmp_path / "rows"))
    seen = Observation()
    plan.judge(other).observe(seen, *plan.metrics()).write.format("noop").mode("overwrite").save()
    assert plan.late() == []
    assert plan.results(seen.get) == plan.results(numbers(plan, plan.judge(df)))


def test_planning_runs_one_job_and_judging_none(suite, sales, spark):
    file = suite((NOT_NULL, {"column": "store"}), (UNIQUE, {"column": "id"}), (ROW_COUNT, {"min_value": 1}))
    df = sales((1, "1", "a"))
    tracker = spark.sparkContext.statusTracker()
    spark.sparkContext.setJobGroup("planning", "planning")
    plan = checks.plan(file, df.limit(0))
    plan.judge(df)
    assert len(tracker.getJobIdsForGroup("planning")) <= 1
    spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)


def test_yaml_and_json_give_the_same_plan(suite, sales, tmp_path):
    expectations = [
        (BETWEEN, {"column": "sold", "min_value": "2024-01-01"}),
        (IN_SET, {"column": "store", "value_set": ["a"]}),
    ]
    path = tmp_path / "sales.json"
    path.write_text(json.dumps({"name": "sales", "expectations": [{"type": t, "kwargs": k} for t, k in expectations]}))
    df = sales((1, "1", "b"), (2, None, "a"))
    results = []
    for file in (suite(*expectations), checks.read(path, tmp_path)):
        plan = checks.plan(file, df.limit(0))
        results.append(plan.results(numbers(plan, plan.judge(df))))
    assert results[0] == results[1]
