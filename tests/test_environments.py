"""This suite in its environments: the overlays differ in places and pace only, and a release is the same bytes in each."""

from __future__ import annotations

from pathlib import Path

import pytest

from microbatch.config import load
from microbatch.errors import ConfigError
from microbatch.session import CORRECT

HERE = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ("local", "dev", "prod", "cluster")


@pytest.fixture
def production(monkeypatch):
    """What prod takes from the environment."""
    monkeypatch.setenv("SALES_LANDING", "/srv/landing")
    monkeypatch.setenv("SALES_ROOT", "/srv/sales")
    monkeypatch.setenv("SHOP_DATABASE_URI", "postgresql://shop@db/shop")
    monkeypatch.setenv("OPS_WEBHOOK", "https://hooks.invalid/ops")


def test_a_release_is_the_same_in_every_environment(production):
    suites = [load(HERE, env) for env in ENVIRONMENTS]
    assert len({suite.version for suite in suites}) == 1
    flows = [[(flow.name, flow.writes) for job in suite.jobs.values() for flow in job.flows] for suite in suites]
    assert all(each == flows[0] for each in flows)


def test_no_two_environments_of_one_machine_share_a_table_or_a_checkpoint(monkeypatch):
    monkeypatch.delenv("SALES_ROOT", raising=False)
    for root in ("warehouse", "checkpoints"):
        assert len({load(HERE, env).environment.storage[root] for env in ("local", "dev", "cluster")}) == 3


def test_an_overlay_changes_what_it_names_and_nothing_else():
    base, dev = load(HERE).jobs["daily_sales"].conf, load(HERE, "dev").jobs["daily_sales"].conf
    assert dev.sources["order_lines"].max_files_per_batch == 5
    assert dev.sources["order_lines"].model_copy(update={"max_files_per_batch": 31}) == base.sources["order_lines"]
    assert (dev.sources["products"], dev.schedule, dev.alerts) == (base.sources["products"], base.schedule, base.alerts)


def test_production_says_what_it_misses_before_anything_starts(monkeypatch):
    for name in ("SALES_LANDING", "SALES_ROOT", "SHOP_DATABASE_URI", "OPS_WEBHOOK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError) as caught:
        load(HERE, "prod")
    told = str(caught.value)
    assert all(name in told for name in ("SALES_LANDING", "SALES_ROOT", "OPS_WEBHOOK"))
    assert "SHOP_DATABASE_URI" not in told  # no job of this suite uses it


def test_production_lies_where_its_environment_says(production):
    assert load(HERE, "prod").environment.storage["warehouse"] == "/srv/sales/warehouse"


def test_the_cluster_s_settings_contradict_none_that_a_right_run_needs():
    conf = load(HERE, "cluster").spark_conf
    assert {key: value for key, value in conf.items() if key in CORRECT and value != CORRECT[key]} == {}
