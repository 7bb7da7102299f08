"""Results are equal to Great Expectations' own, expectation by expectation."""

from __future__ import annotations

import math
import warnings
from decimal import Decimal
from typing import Any

import pytest

from microbatch import checks
from microbatch.checks.catalogue import REFUSED, SUPPORTED
from tests.checks.cases import SCHEMA, numbers, rows, with_condition, without_condition


def own(batch: Any, kind: str, kwargs: dict[str, Any]) -> Any:
    """What Great Expectations' own validator says."""
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return batch.validate(ExpectationConfiguration(type=kind, kwargs=dict(kwargs)).to_domain_obj())


def batch_of(df: Any) -> Any:
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = None
    asset = context.data_sources.add_spark("s", persist=False).add_dataframe_asset("a")
    return asset.add_batch_definition_whole_dataframe("b").get_batch({"dataframe": df})


def plain(value: Any) -> Any:
    """Comparable: NaN as text, decimals as the library's JSON makes them, doubles to the digits that survive a sum."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if not key.startswith("partial_unexpected")}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float | Decimal):
        return "NaN" if math.isnan(value) else float(f"{value:.12g}")
    return value


def differences(spark: Any, suite: Any, cases: list[tuple[str, dict[str, Any]]], seed: int, count: int) -> list[str]:
    df = spark.createDataFrame(rows(seed, count), SCHEMA).cache()
    plan = checks.plan(suite(*cases), df.limit(0))
    ours = plan.evrs(numbers(plan, plan.judge(df)))
    batch = batch_of(df)
    found = []
    for (kind, kwargs), mine in zip(cases, ours, strict=True):
        theirs = own(batch, kind, kwargs)
        if bool(mine.success) != bool(theirs.success) or plain(mine.result) != plain(theirs.result):
            found.append(
                f"{kind} {kwargs}: {mine.success} {plain(mine.result)} != {theirs.success} {plain(theirs.result)}"
            )
    df.unpersist()
    return found


def test_results_are_those_of_great_expectations(spark, suite):
    cases = [*without_condition()[::3], *with_condition()[::6]]
    assert differences(spark, suite, cases, seed=1, count=25) == []


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "count"), [(1, 150), (2, 0)])
def test_every_expectation_gives_what_great_expectations_gives_on_any_rows(spark, suite, seed, count):
    assert differences(spark, suite, [*without_condition(), *with_condition()], seed, count) == []


def test_every_supported_expectation_has_a_case():
    assert {kind for kind, _ in without_condition()} == set(SUPPORTED)


def test_every_expectation_of_the_library_is_either_supported_or_refused_with_a_reason():
    import great_expectations.expectations.core  # noqa: F401  fills the registry
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    known = set(list_registered_expectation_implementations())
    assert known - set(SUPPORTED) - set(REFUSED) == set()
    assert set(SUPPORTED) <= known
    beside = {"id", "meta", "notes", "result_format", "description", "catch_exceptions", "rendered_content", "severity"}
    for kind, arguments in SUPPORTED.items():
        fields = set(get_expectation_impl(kind).__fields__) - beside - {"windows", "batch_id", "library_metadata"}
        assert set(arguments) == fields, kind
