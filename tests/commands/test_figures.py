"""The metrics that alerts are set on, each against a ledger written for it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from microbatch.config import load
from microbatch.config.models import METRICS
from microbatch.runner.figures import Figures, awaited


def figures(house, run_id: str = "run-1", **how) -> Figures:
    suite = load(house.root)
    return Figures(suite, suite.job("orders"), run_id, datetime.now(timezone.utc), **how)


def test_every_metric_that_conf_may_name_has_a_value_or_is_not_known_before_the_first_run(house):
    of = {metric: figures(house).of(metric) for metric in METRICS}
    assert of == {
        **dict.fromkeys(("rows_read", "rows_written", "rows_quarantined", "rows_superseded"), 0),
        **dict.fromkeys(("open_quarantine", "quarantine_age_h", "failed", "lag_rows"), 0),
        **dict.fromkeys(("quarantined_ratio", "duration_s", "freshness_h", "volume_ratio", "sla_missed"), None),
    }


def test_counts_are_of_this_run_over_all_flows_and_what_did_not_parse_is_quarantined(house):
    house.batch("ingest", "run-0", 0, rows_read=1000, rows_transformed=1000, rows_written=1000)
    house.batch("ingest", "run-1", 1, rows_read=10, rows_unparsed=1, rows_transformed=9, rows_written=9)
    house.batch(
        "refine", "run-1", 0, rows_read=9, rows_transformed=9, rows_written=5, rows_quarantined=3, rows_superseded=1
    )
    found = figures(house)
    assert (found.of("rows_read"), found.of("rows_written"), found.of("rows_quarantined")) == (19, 14, 4)
    assert found.of("rows_superseded") == 1
    assert found.of("quarantined_ratio") == pytest.approx(3 / 9)


def test_a_run_that_found_nothing_to_do_counts_nothing_and_has_no_ratio(house):
    house.batch("ingest", "run-0", 0, rows_read=10, rows_unparsed=5, rows_transformed=5, rows_written=5)
    found = figures(house, "run-1")
    assert (found.of("rows_read"), found.of("quarantined_ratio")) == (0, None)
    assert found.of("volume_ratio") == 0


def test_of_a_run_that_goes_on_the_last_day_counts(house):
    house.batch("ingest", "run-1", 0, hours_ago=30, rows_read=1000, rows_transformed=1000)
    house.batch("ingest", "run-1", 1, hours_ago=2, rows_read=10, rows_transformed=10)
    since = datetime.now(timezone.utc) - timedelta(days=1)
    assert figures(house, since=since).of("rows_read") == 10
    assert figures(house).of("rows_read") == 1010


def test_volume_is_held_against_runs_of_the_same_flows(house):
    for number in range(3):
        house.batch("ingest", f"run-{number}", number, hours_ago=9 - number, rows_read=100, rows_transformed=100)
        house.batch("refine", f"refine-{number}", number, hours_ago=9 - number, rows_read=7, rows_transformed=7)
    assert figures(house, "run-2", flows=["ingest"]).of("volume_ratio") == 1
    assert figures(house, "refine-2", flows=["refine"]).of("volume_ratio") == 1


def test_freshness_is_that_of_the_flow_that_waits_longest_but_not_of_one_that_is_only_looked_up(house):
    house.batch("ingest", hours_ago=5)
    house.batch("refine", hours_ago=2)
    assert figures(house).of("freshness_h") == pytest.approx(5, abs=0.1)
    job = load(house.root).job("orders")
    assert [flow.name for flow in awaited(job)] == ["ingest", "refine"]
    repository = load(Path(__file__).resolve().parents[2]).job("daily_sales")
    assert "ingest_products" not in [flow.name for flow in awaited(repository)]


def test_failed_and_sla_missed_are_0_or_1(house):
    late = figures(house, failed=True, sla_met=False, duration_s=12.5)
    assert (late.of("failed"), late.of("sla_missed"), late.of("duration_s")) == (1, 1, 12.5)
    assert figures(house, sla_met=True).of("sla_missed") == 0


def test_only_open_letters_count(house):
    house.letter("a1", hours_ago=3)
    house.letter("a2", hours_ago=9, status="discarded")
    assert figures(house).of("open_quarantine") == 1
    assert figures(house).of("quarantine_age_h") == pytest.approx(3, abs=0.1)
