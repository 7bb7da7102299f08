"""Alerts: told once when they begin and once when they end, through a real webhook. Idle runs, so no Spark."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from deltalake import DeltaTable

from microbatch.commands.run import execute
from microbatch.config import load
from microbatch.runner import alerts
from microbatch.runner.watch import Watch
from microbatch.sink import ops
from tests.commands.conftest import outcome
from tests.webhook import Webhook, serving

HERE = Path(__file__).parents[2]
CONF = """
sources:
  orders: {{kind: files, format: json, path: "${{landing}}/orders"}}
retry: {{attempts: 0}}
alerts:
{alerts}
"""
ENVIRONMENT = 'channels: {ops: {url: "${env:OPS_WEBHOOK:-}"}, quiet: {url: ""}}\n'
TELLS_OFTEN = """
from microbatch.runner import going_on
from microbatch.cli import main

going_on.TELL_S = 0.2
main()
"""


@pytest.fixture
def hook(monkeypatch) -> Iterator[Webhook]:
    with serving() as webhook:
        monkeypatch.setenv("OPS_WEBHOOK", webhook.url)
        yield webhook


def alerting(house, *alerts: str):
    """The suite with nothing to do, and these alerts."""
    (house.root / "data/landing/orders/1.json").unlink(missing_ok=True)
    (house.root / "conf/base/environment.yml").write_text(ENVIRONMENT)
    (house.root / "conf/base/orders.yml").write_text(CONF.format(alerts="\n".join(f"  - {{{a}}}" for a in alerts)))


def run(house) -> None:
    called = house.call("run", "orders")
    assert called.exit_code == 0, called.output


def titles(hook) -> list[str]:
    return [message["title"] for message in hook.received]


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.1)


def changes(house) -> list[dict]:
    return ops.rows(house.warehouse, "alerts")


def test_an_alert_is_told_once_over_ten_runs_and_once_when_it_is_over(house, hook):
    alerting(house, 'when: "freshness_h > 26", severity: critical, notify: [ops]')
    house.taken("ingest", hours_ago=31)
    for _ in range(10):
        run(house)
    assert [message["title"] for message in hook.received] == ["critical: orders: freshness_h > 26"]
    assert hook.received[0]["type"] == "failure"
    assert "freshness_h is 31" in hook.received[0]["message"]
    house.taken("ingest", "run-2", 1, hours_ago=1)
    for _ in range(3):
        run(house)
    assert [message["title"] for message in hook.received[1:]] == ["over: orders: freshness_h > 26"]
    assert hook.received[1]["type"] == "success"
    assert [change["status"] for change in changes(house)] in (["on", "over"], ["over", "on"])
    assert len(DeltaTable(f"{house.warehouse}/ops/alerts").history()) == 2


def test_open_letters_and_their_age_raise_alerts_with_nothing_else_to_do(house, hook):
    alerting(
        house,
        'when: "open_quarantine >= 2", notify: [ops]',
        'when: "quarantine_age_h > 4", notify: [ops]',
        'when: "failed > 0", notify: [ops]',
    )
    house.letter("a1", hours_ago=5)
    run(house)
    assert [message["title"] for message in hook.received] == ["warning: orders: quarantine_age_h > 4"]
    house.letter("a2")
    run(house)
    assert hook.received[1]["title"] == "warning: orders: open_quarantine >= 2"
    assert len(hook.received) == 2


def test_status_says_which_alerts_are_on_to_people_and_to_programs(house, hook):
    alerting(house, 'when: "freshness_h > 26", severity: critical, notify: [ops]')
    house.taken("ingest", hours_ago=31)
    run(house)
    assert "orders: critical on since" in house.call("status").stdout
    (alert,) = json.loads(house.call("status", "--json").stdout)[0]["alerts"]
    assert (alert["when"], alert["severity"], alert["undelivered"]) == ("freshness_h > 26", "critical", None)


def test_a_channel_that_is_down_fails_no_run_is_said_in_status_and_gets_the_message_later(house, hook):
    alerting(house, 'when: "freshness_h > 26", notify: [ops]')
    house.taken("ingest", hours_ago=31)
    hook.answer = 500
    called = house.call("run", "orders")
    assert called.exit_code == 0
    assert "channel ops did not take the alert freshness_h > 26" in called.stderr
    assert hook.received == []
    said = house.call("status").stdout
    assert "an alert could not be sent" in said
    assert "500" in said
    hook.answer = 200
    for _ in range(3):
        run(house)
    assert [message["title"] for message in hook.received] == ["warning: orders: freshness_h > 26"]
    assert "could not be sent" not in house.call("status").stdout


def test_a_run_that_goes_on_sends_again_what_a_channel_did_not_take_and_asks_it_only_now_and_then(
    house, hook, monkeypatch
):
    alerting(house, 'when: "freshness_h > 26", notify: [ops]')
    house.taken("ingest", hours_ago=31)
    hook.answer = 500
    suite, said = load(house.root), []
    watch, job = Watch(suite, ["orders"], "run-1", said.append), suite.job("orders")
    for _ in range(3):
        watch.pauses(job, ["ingest"], 60.0, [])
    assert len(said) == 1 and "channel ops did not take the alert" in said[0]
    hook.answer = 200
    watch.pauses(job, ["ingest"], 60.0, [])
    assert hook.received == []
    monkeypatch.setattr(alerts, "AGAIN_S", 0.1)
    time.sleep(0.2)
    for _ in range(3):
        watch.pauses(job, ["ingest"], 60.0, [])
        time.sleep(0.2)
    assert titles(hook) == ["warning: orders: freshness_h > 26"]
    assert sorted(bool(change["undelivered"]) for change in changes(house)) == [False, True]


def test_a_new_run_tries_a_dead_channel_at_once_and_then_leaves_it_alone_too(house, hook):
    alerting(house, 'when: "freshness_h > 26", notify: [ops]')
    house.taken("ingest", hours_ago=31)
    hook.answer = 500
    run(house)
    suite, said = load(house.root), []
    watch = Watch(suite, ["orders"], "run-2", said.append)
    for _ in range(3):
        watch.pauses(suite.job("orders"), ["ingest"], 60.0, [])
    assert len(said) == 1 and "channel ops did not take the alert" in said[0]


def test_what_one_of_two_channels_did_not_take_is_sent_again_to_that_one_only(house, hook):
    alerting(house, 'when: "freshness_h > 26", notify: [ops, pager, mail]')
    house.taken("ingest", hours_ago=31)
    with serving() as pager, serving() as mail:
        (house.root / "conf/base/environment.yml").write_text(
            f"channels: {{ops: {{url: '{hook.url}'}}, pager: {{url: '{pager.url}'}}, mail: {{url: '{mail.url}'}}}}\n"
        )
        pager.answer = mail.answer = 500
        run(house)
        mail.answer = 200
        for _ in range(2):
            run(house)
        said = house.call("status").stdout
        assert "pager: " in said and "mail: " not in said
        pager.answer = 200
        for _ in range(2):
            run(house)
        for channel in (hook, pager, mail):
            assert titles(channel) == ["warning: orders: freshness_h > 26"]
    assert "could not be sent" not in house.call("status").stdout


def test_a_warning_and_a_critical_of_one_condition_are_each_told_kept_and_ended(house, hook):
    with serving() as pager:
        alerting(
            house,
            'when: "freshness_h > 26", notify: [ops]',
            'when: "freshness_h > 26", severity: critical, notify: [pager]',
        )
        (house.root / "conf/base/environment.yml").write_text(
            f"channels: {{ops: {{url: '{hook.url}'}}, pager: {{url: '{pager.url}'}}}}\nmetrics: {{file: m.prom}}\n"
        )
        house.taken("ingest", hours_ago=31)
        pager.answer = 500
        run(house)
        said = house.call("status").stdout
        assert "orders: warning on since" in said and "orders: critical on since" in said
        assert "critical freshness_h > 26 (on): pager: " in said and "warning freshness_h > 26 (on)" not in said
        for severity in ("warning", "critical"):
            line = f'microbatch_alert_on{{alert="freshness_h > 26",job="orders",severity="{severity}"}} 1.0'
            assert line in (house.root / "m.prom").read_text()
        pager.answer = 200
        run(house)
        house.taken("ingest", "run-2", 1, hours_ago=1)
        for _ in range(2):
            run(house)
        assert titles(hook) == ["warning: orders: freshness_h > 26", "over: orders: freshness_h > 26"]
        assert titles(pager) == ["critical: orders: freshness_h > 26", "over: orders: freshness_h > 26"]


def test_a_server_that_is_not_there_and_a_url_that_is_none_are_said_without_the_url(house, monkeypatch):
    alerting(house, 'when: "freshness_h > 26", notify: [ops]')
    house.taken("ingest", hours_ago=31)
    for url in ("http://127.0.0.1:9/hook-token-4711", "carrier-pigeon://token-4711"):
        monkeypatch.setenv("OPS_WEBHOOK", url)
        called = house.call("run", "orders")
        assert called.exit_code == 0
        assert "channel ops did not take the alert" in called.stderr
        assert "4711" not in called.output + house.call("status").output + str(changes(house))


def test_what_a_webhook_is_asked_with_reaches_it(house, hook, monkeypatch):
    monkeypatch.setenv("OPS_WEBHOOK", f"{hook.url}?token=t4711&method=get&-plus=1")
    alerting(house, 'when: "freshness_h > 26", notify: [ops]')
    house.taken("ingest", hours_ago=31)
    run(house)
    assert [parse_qs(urlsplit(path).query) for path in hook.paths] == [
        {"token": ["t4711"], "method": ["get"], "plus": ["1"]}
    ]


def test_an_empty_url_sends_nothing_and_the_state_is_kept_all_the_same(house):
    alerting(house, 'when: "freshness_h > 26", notify: [quiet]', 'when: "rows_read < 1", severity: info')
    house.taken("ingest", hours_ago=31)
    run(house)
    assert {(change["alert"], change["undelivered"]) for change in changes(house)} == {
        ("freshness_h > 26", None),
        ("rows_read < 1", None),
    }


def test_a_secret_in_what_is_told_is_taken_out(house, hook, monkeypatch):
    monkeypatch.setenv("TOKEN", "s3cr3t-t0ken")
    alerting(house, 'when: "failed == 1", notify: [ops]')
    (house.root / "conf/base/environment.yml").write_text(
        ENVIRONMENT + 'connections: {x: {url: "http://${env:TOKEN}"}}\n'
    )
    landing = house.root / "data/landing/orders"
    landing.rename(house.root / "data/landing/s3cr3t-t0ken")
    conf = house.root / "conf/base/orders.yml"
    conf.write_text(conf.read_text().replace("${landing}/orders", "${landing}/s3cr3t-t0ken/away"))
    assert house.call("run", "orders").exit_code == 5
    assert [message["title"] for message in hook.received] == ["warning: orders: failed == 1"]
    assert "source orders is not available" in hook.received[0]["message"]
    assert "s3cr3t" not in str(hook.received)


def test_a_failure_is_told_and_so_is_its_end(house, hook):
    alerting(house, 'when: "failed > 0", severity: critical, notify: [ops]')
    landing = house.root / "data/landing/orders"
    landing.rename(house.root / "data/landing/elsewhere")
    for _ in range(2):
        assert house.call("run", "orders").exit_code == 5
    (house.root / "data/landing/elsewhere").rename(landing)
    run(house)
    assert [message["title"] for message in hook.received] == [
        "critical: orders: failed > 0",
        "over: orders: failed > 0",
    ]


def test_a_run_that_changes_no_alert_leaves_no_commit_and_sends_nothing(house, hook):
    alerting(house, 'when: "freshness_h > 26", notify: [ops]')
    house.taken("ingest", hours_ago=1)
    run(house)
    assert hook.received == []
    assert changes(house) == []


def test_volume_is_held_against_the_median_of_the_last_fourteen_runs(house, hook):
    alerting(house, 'when: "volume_ratio < 0.5", notify: [ops]')
    for number in range(20):
        rows = 1_000_000 if number < 6 else 100
        house.taken(
            "ingest",
            f"run-{number}",
            number,
            hours_ago=50 - number,
            rows_read=rows,
            rows_transformed=rows,
            rows_written=rows,
        )
    suite = load(house.root)
    from microbatch.runner.figures import Figures

    assert Figures(suite, suite.job("orders"), "run-19", _now()).of("volume_ratio") == 1.0
    run(house)
    assert "volume_ratio is 0" in hook.received[0]["message"]


def _now():
    from datetime import datetime, timezone

    return datetime.now(timezone.utc)


def test_an_idle_run_with_alerts_stays_under_a_second_and_loads_no_apprise(house, monkeypatch):
    alerting(house, 'when: "freshness_h > 26", notify: [quiet]', 'when: "open_quarantine > 100", notify: [quiet]')
    house.taken("ingest", hours_ago=1)
    suite = load(house.root)
    execute(suite, ["orders"])
    loaded = set(sys.modules)
    started = time.process_time()
    execute(suite, ["orders"])
    assert time.process_time() - started < 1
    assert not {name for name in set(sys.modules) - loaded if name.startswith(("apprise", "pyspark"))}


def test_a_warehouse_that_cannot_keep_the_state_fails_no_run(house, hook):
    alerting(house, 'when: "freshness_h > 26", notify: [ops]')
    house.taken("ingest", hours_ago=31)
    (house.root / "data/warehouse/ops/alerts").write_text("a file where the table should be")
    called = house.call("run", "orders")
    assert called.exit_code == 0, called.output
    assert "alerts: not told" in called.stderr


def test_a_run_that_goes_on_judges_its_alerts_and_writes_its_metrics_while_it_has_nothing_to_do(house, hook):
    alerting(house, 'when: "freshness_h > 26", notify: [ops]')
    environment = house.root / "conf/base/environment.yml"
    environment.write_text(f"{ENVIRONMENT}metrics: {{file: m.prom}}\n")
    house.taken("ingest", hours_ago=31)
    suite = load(house.root)
    watch = Watch(suite, ["orders"], "run-1", print)
    for _ in range(3):
        watch.pauses(suite.job("orders"), ["ingest", "refine"], 60.0, [])
    assert [message["title"] for message in hook.received] == ["warning: orders: freshness_h > 26"]
    assert (
        'microbatch_alert_on{alert="freshness_h > 26",job="orders",severity="warning"} 1.0'
        in (house.root / "m.prom").read_text()
    )


def test_a_batch_that_was_stuck_for_more_than_a_day_is_told_when_it_ends(house, hook):
    alerting(house, 'when: "rows_quarantined > 2", notify: [ops]')
    suite = load(house.root)
    job = suite.job("orders")
    refine = next(flow for flow in job.flows if flow.name == "refine")
    watch = Watch(suite, ["orders"], "run-1", print)
    watch.batch_ends(job, refine, outcome("refine", hours_ago=60, rows_read=2, rows_quarantined=2))
    assert hook.received == []
    watch.batch_ends(job, refine, outcome("refine", batch_id=1, hours_ago=50, rows_read=3, rows_quarantined=3))
    assert "rows_quarantined is 3" in hook.received[0]["message"]


@pytest.mark.slow
def test_a_run_that_goes_on_tells_of_a_flow_that_fails_as_long_as_it_fails_and_no_longer(house, hook):
    """The source's folder is away, comes, and goes again; the alert was on before the run that goes on began."""
    alerting(house, 'when: "failed > 0", severity: critical, notify: [ops]')
    landing, elsewhere, log = house.root / "data/landing/orders", house.root / "data/elsewhere", house.root / "log"
    landing.rename(elsewhere)
    assert house.call("run", "orders").exit_code == 5
    words = [sys.executable, "-c", TELLS_OFTEN, "run", "orders", "--continuous", "--suite", str(house.root)]
    with log.open("w") as said:
        going_on = subprocess.Popen(words, cwd=HERE, stdout=said, stderr=said)
        try:
            wait_for(lambda: "again in 2 s" in log.read_text())
            assert titles(hook) == ["critical: orders: failed > 0"]
            elsewhere.rename(landing)
            wait_for(lambda: len(hook.received) > 1)
            landing.rename(elsewhere)
            wait_for(lambda: len(hook.received) > 2)
            elsewhere.rename(landing)
            wait_for(lambda: len(hook.received) > 3)
        finally:
            going_on.send_signal(signal.SIGTERM)
            assert going_on.wait(60) == 0, log.read_text()
    assert titles(hook) == ["critical: orders: failed > 0", "over: orders: failed > 0"] * 2
    assert "source orders is not available" in hook.received[2]["message"]


def test_an_alert_on_failure_stays_as_it_is_while_a_run_that_goes_on_does_not_know_yet(house, hook):
    alerting(house, 'when: "failed > 0", notify: [ops]')
    suite = load(house.root)
    watch, job = Watch(suite, ["orders"], "run-1", print), suite.job("orders")
    for errors in ([ValueError("it is stuck")], None, [], None):
        watch.pauses(job, ["ingest", "refine"], 60.0, errors)
    assert titles(hook) == ["warning: orders: failed > 0", "over: orders: failed > 0"]
