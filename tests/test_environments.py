"""This suite in its environments: the overlays differ in places and pace only, and a release is the same bytes in each."""

from __future__ import annotations

from pathlib import Path

import pytest

from microbatch.config import load
from microbatch.errors import ConfigError
from microbatch.session import CORRECT

HERE = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ("local", "dev", "prod", "cluster")


TAKEN = {
    "SALES_LANDING": "/srv/landing",
    "SALES_ROOT": "/srv/sales",
    "SHOP_DATABASE_URI": "postgresql://shop@db/shop",
    "SHOP_RATES_URL": "https://bank.invalid",
    "SHOP_KAFKA_SERVERS": "bus:9092",
    "OPS_WEBHOOK": "https://hooks.invalid/ops",
}


@pytest.fixture
def production(monkeypatch):
    """What prod takes from the environment."""
    for name, value in TAKEN.items():
        monkeypatch.setenv(name, value)


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


def test_production_says_all_it_misses_before_anything_starts(monkeypatch):
    for name in TAKEN:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError) as caught:
        load(HERE, "prod")
    assert [name for name in TAKEN if name not in str(caught.value)] == []


def test_production_lies_where_its_environment_says(production):
    assert load(HERE, "prod").environment.storage["warehouse"] == "/srv/sales/warehouse"


def test_the_cluster_s_settings_contradict_none_that_a_right_run_needs():
    conf = load(HERE, "cluster").spark_conf
    assert {key: value for key, value in conf.items() if key in CORRECT and value != CORRECT[key]} == {}
