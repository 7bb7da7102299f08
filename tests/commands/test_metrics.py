"""Prometheus: the file after each run and the endpoint, both out of the ledger. Idle runs, so no Spark."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from microbatch.config import load
from microbatch.errors import WarehouseUnavailable
from microbatch.runner.figures import Lag
from microbatch.runner.health import Health
from microbatch.runner.metrics import serving
from microbatch.sink import ops
from tests.commands.conftest import ago

ORDER = ("job", "flow", "unit", "status", "alert", "severity", "env", "suite_version")


def measured(house, metrics: str) -> None:
    (house.root / "data/landing/orders/1.json").unlink(missing_ok=True)
    (house.root / "conf/base/environment.yml").write_text(f"metrics: {metrics}\n")


def samples(text: str) -> dict[tuple[str, ...], float]:
    """By name and the values of the labels."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels, key=ORDER.index))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def some_runs(house) -> None:
    house.taken("ingest", "run-1", 0, 5, rows_read=10, rows_unparsed=1, rows_transformed=9, rows_written=9)
    house.ran("run-1", hours_ago=5, sla_met=False, error="flow refine stopped")
    house.taken("ingest", "run-2", 1, 2, rows_read=4, rows_transformed=4, rows_quarantined=1, rows_written=3)
    house.ran("run-2", hours_ago=2, sla_met=True)
    house.letter("a1", hours_ago=3)


def test_the_file_says_after_each_run_what_the_ledger_says(house):
    measured(house, "{file: data/metrics/microbatch.prom}")
    some_runs(house)
    assert house.call("run", "orders").exit_code == 0
    found = samples((house.root / "data/metrics/microbatch.prom").read_text())
    assert found["microbatch_rows_read_total", "orders", "ingest"] == 14
    assert found["microbatch_rows_written_total", "orders", "ingest"] == 12
    assert found["microbatch_rows_quarantined_total", "orders", "ingest"] == 2
    assert found["microbatch_rows_read_total", "orders", "refine"] == 0
    assert found["microbatch_batch_duration_seconds_count", "orders", "ingest"] == 2
    assert found["microbatch_batch_duration_seconds_sum", "orders", "ingest"] == 3
    assert found["microbatch_quarantine_open_letters", "orders", "refine"] == 1
    assert found["microbatch_runs_total", "orders", "failed"] == 1
    assert found["microbatch_last_run_success", "orders"] == 1
    assert found["microbatch_last_run_sla_met", "orders"] == 1
    assert ("microbatch_newest_input_timestamp_seconds", "orders", "refine") not in found


def test_where_a_rewind_left_no_run_there_is_no_last_run(house):
    measured(house, "{file: m.prom}")
    at = ago(1)
    row = {"job": "orders", "run_id": "rewind-1", "started_at": at, "finished_at": at, "status": "rewound"}
    ops.append(house.warehouse, "runs", [{**row, "exit_code": 0, "accepted": f"rewind to {at}"}], key=("rewind-1", 0))
    assert house.call("run", "orders").exit_code == 0
    found = samples((house.root / "m.prom").read_text())
    assert not [name for name, *_ in found if name.startswith("microbatch_last_run_")]
    assert found["microbatch_runs_total", "orders", "done"] == 0


def test_every_name_is_one_of_prometheus_conventions(house):
    measured(house, "{file: m.prom}")
    some_runs(house)
    house.call("run", "orders")
    for family in text_string_to_metric_families((house.root / "m.prom").read_text()):
        assert family.name.startswith("microbatch_")
        assert family.documentation
        assert not family.name.endswith(("_ms", "_hours", "_minutes"))
        assert family.type in {"counter", "gauge", "summary", "info"}
        for sample in family.samples:
            assert family.type != "counter" or sample.name.endswith("_total")


def test_a_file_that_cannot_be_written_fails_no_run(house):
    measured(house, "{file: data/landing/orders}")
    called = house.call("run", "orders")
    assert called.exit_code == 0
    assert "metrics: not told" in called.stderr


def test_the_endpoint_serves_on_loopback_while_it_is_on_and_counts_anew_at_each_scrape(house):
    port = free_port()
    measured(house, f"{{port: {port}}}")
    url = f"http://127.0.0.1:{port}/metrics"
    lags = {("orders", "ingest"): Lag("file", 3), ("orders", "refine"): Lag("change", 7, 4096)}
    with serving(load(house.root), lags, Health("run-1")):
        house.taken("ingest", rows_read=10, rows_transformed=10, rows_written=10)
        first = samples(urllib.request.urlopen(url, timeout=10).read().decode())
        house.taken("ingest", "run-2", 1, rows_read=5, rows_transformed=5, rows_written=5)
        second = samples(urllib.request.urlopen(url, timeout=10).read().decode())
    assert [found["microbatch_rows_read_total", "orders", "ingest"] for found in (first, second)] == [10, 15]
    assert first["microbatch_source_pending", "orders", "ingest", "file"] == 3
    assert first["microbatch_source_log_bytes", "orders", "refine"] == 4096
    assert ("microbatch_source_log_bytes", "orders", "ingest") not in first
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=1)


def test_health_is_503_once_a_flow_has_ended_and_not_while_its_source_is_only_away(house):
    port = free_port()
    measured(house, f"{{port: {port}}}")
    health = Health("run-1")

    def asked() -> tuple[int, dict]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as refused:
            return refused.code, json.loads(refused.read())

    with serving(load(house.root), {}, health):
        health.says("orders.ingest", "waiting")
        assert asked()[0] == 200
        health.came_back("orders.ingest", "away", 2, "source orders is not available")
        code, told = asked()
        assert (code, told["well"], told["run_id"]) == (200, True, "run-1")
        assert told["flows"]["orders.ingest"]["batches"] == 2
        assert "not available" in told["flows"]["orders.ingest"]["error"]
        health.came_back("orders.ingest", "ended", 2, "a column is missing")
        code, told = asked()
        assert (code, told["well"], told["flows"]["orders.ingest"]["state"]) == (503, False, "ended")


def test_another_address_is_served_only_where_conf_names_it(house):
    port = free_port()
    measured(house, f"{{port: {port}, host: 127.0.0.2}}")
    with serving(load(house.root), {}, Health("run-1")):
        assert urllib.request.urlopen(f"http://127.0.0.2:{port}/metrics", timeout=10).status == 200
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1)


def test_a_port_that_is_taken_is_one_line_with_what_to_do(house):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        measured(house, f"{{port: {other.getsockname()[1]}}}")
        served = serving(load(house.root), {}, Health("run-1"))
        with pytest.raises(WarehouseUnavailable, match="change `metrics.port` in conf"), served:
            pass


def test_without_metrics_in_conf_nothing_is_served(house):
    with serving(load(house.root), {}, Health("run-1")):
        pass
    assert not list(house.root.rglob("*.prom"))
