"""OpenLineage: the events of real runs, held against the specification, to a file and to a server."""

from __future__ import annotations

import io
import json
from typing import Any
from uuid import uuid4

import jsonschema
import pytest

from microbatch.observers import Lines
from microbatch.runner import run
from microbatch.testing import Bench
from tests.daily_sales import daily_sales
from tests.openlineage_spec import facets, validate
from tests.orders import order
from tests.webhook import serving

PARENT = "https://openlineage.io/spec/facets/1-2-0/ParentRunFacet.json#/$defs/ParentRunFacet"


def lines_of(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (bench.root / "lineage.jsonl").read_text().splitlines()]


def of(events: list[dict[str, Any]], name: str) -> list[str]:
    return [event["eventType"] for event in events if event["job"]["name"] == name]


def test_the_schemas_see_what_is_wrong():
    event = {"eventTime": "2025-03-01T02:00:00Z", "producer": "https://example.org", "run": {"runId": str(uuid4())}}
    event |= {"eventType": "START", "job": {"namespace": "n", "name": "j"}}
    event |= {"schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"}
    validate(event)
    base = {"_producer": "https://example.org", "_schemaURL": PARENT}
    for wrong in (
        {"run": {"runId": "1"}},
        {"eventType": "BEGUN"},
        {"run": {**event["run"], "facets": {"parent": base}}},  # neither run nor job
        {"run": {**event["run"], "facets": {"father": {**base, "run": event["run"], "job": event["job"]}}}},
    ):
        with pytest.raises((jsonschema.ValidationError, AssertionError)):
            validate(event | wrong)


@pytest.mark.slow
def test_events_are_those_of_the_specification_and_revenue_reaches_sales_value(bench: Bench):
    with serving() as server:
        daily_sales(bench, f"lineage: {{file: lineage.jsonl, url: '{server.url}'}}\n")
        bench.run("daily_sales")
        events = lines_of(bench)
        assert server.received == events
    for event in events:
        validate(event)
    used = {name for event in events for name, _ in facets(event)}
    assert {
        "schema",
        "columnLineage",
        "dataQualityAssertions",
        "dataQualityMetrics",
        "outputStatistics",
        "parent",
    } <= used
    assert of(events, "daily_sales") == ["START", "COMPLETE"]
    flows = ("ingest_order_lines", "ingest_products", "refine_sales", "total_daily_sales")
    for flow in flows:
        assert of(events, f"daily_sales.{flow}") == ["START", "RUNNING", "COMPLETE"]
    assert len({event["run"]["runId"] for event in events}) == 1 + len(flows)
    parents = {
        event["run"]["facets"]["parent"]["run"]["runId"] for event in events if event["job"]["name"] != "daily_sales"
    }
    assert parents == {event["run"]["runId"] for event in events if event["job"]["name"] == "daily_sales"}
    ended = {event["job"]["name"]: event for event in events if event["eventType"] == "COMPLETE"}
    assert reached(ended, "gold.daily_sales", "revenue") >= {("order_lines", "sales_value")}
    refined = ended["daily_sales.refine_sales"]
    assert refined["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 2
    assert refined["inputs"][0]["inputFacets"]["dataQualityMetrics"]["rowCount"] == 3
    failed = [
        (each["name"], each["success"])
        for each in refined["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"]
        if not each["success"]
    ]
    assert failed
    types = {field["name"]: field["type"] for field in refined["outputs"][0]["facets"]["schema"]["fields"]}
    assert types["amount"] == "decimal(12,2)"


def reached(ended: dict[str, dict[str, Any]], table: str, column: str) -> set[tuple[str, str]]:
    """Every dataset and column that a column is made of, by the names people know the datasets by."""
    names, made = {}, {}
    for event in ended.values():
        for dataset in [*event.get("inputs", []), *event.get("outputs", [])]:
            names[dataset["namespace"], dataset["name"]] = dataset["facets"]["symlinks"]["identifiers"][0]["name"]
        for dataset in event.get("outputs", []):
            for field, how in dataset["facets"].get("columnLineage", {"fields": {}})["fields"].items():
                known = names[dataset["namespace"], dataset["name"]]
                made[known, field] = [(names[i["namespace"], i["name"]], i["field"]) for i in how["inputFields"]]
    found: set[tuple[str, str]] = set()
    ahead = [(table, column)]
    while ahead:
        new = [each for each in made.get(ahead.pop(), []) if each not in found]
        found.update(new)
        ahead += new
    return found


@pytest.mark.slow
def test_a_flow_that_fails_says_so_and_no_secret(orders: Bench, monkeypatch):
    monkeypatch.setenv("TOKEN", "s3cr3t-t0ken")
    conf = 'lineage: {file: lineage.jsonl}\nconnections: {x: {url: "http://${env:TOKEN}"}}\n'
    orders.write("conf/base/environment.yml", conf)
    orders.write(
        "transforms/orders.py",
        "calls = 0\n\n\ndef refine(orders):\n    global calls\n    calls += 1\n"
        '    if calls > 2:\n        raise ValueError("no s3cr3t-t0ken")\n    return orders.selectExpr("*", "1 AS cents")\n',
    )
    orders.land("orders", order(1))
    report = orders.report("orders")
    assert report.exit_code == 1
    events = lines_of(orders)
    assert of(events, "orders.ingest") == ["START", "RUNNING", "COMPLETE"]
    assert of(events, "orders.refine") == ["START", "FAIL"]
    assert of(events, "orders") == ["START", "FAIL"]
    failed = next(event for event in events if event["eventType"] == "FAIL")
    assert "ValueError" in failed["run"]["facets"]["errorMessage"]["message"]
    assert "s3cr3t" not in json.dumps(events)
    for event in events:
        validate(event)


@pytest.mark.slow
def test_a_server_that_is_down_fails_no_run_and_is_said_once(orders: Bench):
    orders.write("conf/base/environment.yml", "lineage: {url: 'http://127.0.0.1:9/api/v1/lineage'}\n")
    orders.land("orders", order(1))
    said = io.StringIO()
    report = run(orders.suite(), ["orders"], observer=Lines(said))
    assert report.exit_code == 0
    assert len(report.outcomes) == 2
    assert [line for line in said.getvalue().splitlines() if line.startswith("lineage: not told: ")] == [
        line for line in said.getvalue().splitlines() if "lineage" in line
    ]
    assert said.getvalue().count("lineage: not told") == 1
