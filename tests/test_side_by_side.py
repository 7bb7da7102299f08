"""Flows that nothing joins are taken in side by side; those that read what others write come after them."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from microbatch import session
from microbatch.observers import Observer
from microbatch.outcome import Outcome
from microbatch.runner import Report, run
from microbatch.testing import Bench
from tests import soak
from tests.landing import Landing

pytestmark = pytest.mark.slow  # whole runs of the engine

MEET_WITHIN_S = 120


@pytest.fixture
def shop(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Three flows that read files, one that reads two of their tables, one that reads its."""
    monkeypatch.setattr(session, "cores", lambda: 2)
    files, landing = soak.Shop(tmp_path / "suite"), Landing(random.Random(3))
    files.land(landing.shops() | landing.round())
    return Bench(spark, files.root, files.root / "data")


class Told(Observer):
    """Remembers what it is told, in its order."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.ended_before: dict[str, set[str]] = {}

    def flow_begins(self, job: str, flow: str, pending: int) -> None:
        self.begun.append(flow)
        self.ended_before[flow] = set(self.ended)

    def batch_ends(self, outcome: Outcome, pending: int) -> None:
        self.ended.append(outcome.flow)


def states(report: Report) -> dict[str, str]:
    return {each.flow: each.state for each in report.flows}


def test_two_flows_are_in_a_batch_at_once_and_a_third_waits_for_the_tables_it_reads(shop: Bench):
    both, met = threading.Barrier(2), threading.Event()

    def reached(step: str, batch_id: int) -> None:
        if step == "judge" and not met.is_set():
            both.wait(MEET_WITHIN_S)  # breaks where flows come one after the other
            met.set()

    told = Told()
    report = run(shop.suite(), ["shop"], observer=told, reached=reached)
    assert report.errors == []
    assert [each.flow for each in report.flows] == ["take_shops", "take_orders", "follow_customers", "refine", "total"]
    assert set(states(report).values()) == {"done"}
    assert {"take_shops", "take_orders"} <= told.ended_before["refine"]
    assert "refine" in told.ended_before["total"]


def test_what_reads_the_table_of_a_flow_that_failed_waits_and_the_others_go_on(shop: Bench):
    for file in (shop.root / "data/landing/orders").iterdir():
        file.unlink()
    (shop.root / "data/landing/orders").rmdir()  # no folder: its source is not available
    report = run(shop.suite(), ["shop"])
    assert states(report) == {
        "take_shops": "done",
        "take_orders": "failed",
        "follow_customers": "done",
        "refine": "waiting",
        "total": "waiting",
    }


def test_what_ends_a_run_at_once_begins_no_further_flow(shop: Bench):
    class Crash(BaseException):
        pass

    class Falls(Told):
        def flow_begins(self, job: str, flow: str, pending: int) -> None:
            super().flow_begins(job, flow, pending)
            raise Crash

    told = Falls()
    with pytest.raises(Crash):
        run(shop.suite(), ["shop"], observer=told)
    assert not {"refine", "total"} & set(told.begun)
    again = run(shop.suite(), ["shop"])
    assert set(states(again).values()) == {"done"}
