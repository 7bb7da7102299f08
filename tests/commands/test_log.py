"""What a run writes to stderr for programs. Idle and failing runs, so no Spark."""

from __future__ import annotations

import io
import json

from microbatch.observers import LOGGED, Bar, JsonLines
from microbatch.outcome import Outcome
from microbatch.sink import ops


def test_each_line_of_stderr_is_an_object_and_the_table_stays_on_stdout(house):
    (house.root / "data/landing/orders/1.json").unlink()
    called = house.call("run", "orders", "--log", "json")
    assert called.exit_code == 0
    events = [json.loads(line) for line in called.stderr.splitlines()]
    assert [event["event"] for event in events] == ["run_begins", "run_ends"]
    assert events[0]["flows"] == ["orders.ingest", "orders.refine"]
    assert all(event["at"].endswith("+00:00") for event in events)
    assert "orders.ingest" in called.stdout


def test_an_error_is_an_object_too(house):
    (house.root / "data/landing/orders").rename(house.root / "data/landing/elsewhere")
    called = house.call("run", "orders", "--log", "json")
    assert called.exit_code == 5
    events = [json.loads(line) for line in called.stderr.splitlines()]
    (error,) = [event["text"] for event in events if event["event"] == "error"]
    assert error.startswith("source orders is not available")


def outcome(flow: str = "ingest") -> Outcome:
    counts = {name: 1 for name in ops.TABLES["batches"] if name.startswith("rows_")}
    texts = dict.fromkeys(("run_id", "query_id", "started_at", "source_start", "source_end", "suite_version"), "x")
    return Outcome(
        job="orders", flow=flow, batch_id=0, duration_ms=5, target_version=0, newest_at=None, **texts, **counts
    )


def test_a_batch_is_told_with_the_names_of_the_ledger():
    stream = io.StringIO()
    JsonLines(stream).batch_ends(outcome(), 3)
    event = json.loads(stream.getvalue())
    assert set(LOGGED) <= {*event, *ops.TABLES["batches"]} & set(ops.TABLES["batches"])
    assert (event["event"], event["job"], event["rows_read"], event["pending"]) == ("batch", "orders", 1, 3)


def test_without_json_there_is_a_plain_line(house):
    (house.root / "data/landing/orders").rename(house.root / "data/landing/elsewhere")
    called = house.call("run", "orders", "--log", "text")
    assert called.stderr.startswith("microbatch: source orders is not available")


def test_a_terminal_gets_a_bar_with_the_flow_s_place_its_rows_and_what_is_said_meanwhile(monkeypatch, capsys):
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "120"}.items():
        monkeypatch.setenv(name, value)
    bar = Bar()
    bar.begins([("orders", "ingest"), ("orders", "refine")])
    bar.flow_begins("orders", "refine", 2)
    bar.batch_ends(outcome("refine"), 1)
    bar.says("source shop is slow [today]")
    bar.flow_ends("orders", "refine")
    bar.ends("run-1")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(word in shown.err for word in ("2/2 refine", "1 rows, 1 batch", "source shop is slow [today]"))
