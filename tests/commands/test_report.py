"""The report: opened by a real browser, its figures held against the tables. Ledgers are written as the engine writes them."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from microbatch.commands.report.gather import gather
from microbatch.config import load
from microbatch.sink import ops
from microbatch.sink.tables import Table
from tests.browser import opened
from tests.commands.conftest import ago

SCRIPT = '<script>document.title = "broken in"</script><img src="http://127.0.0.1:9/x" onerror="alert(1)">'
RULE = ("expect_column_values_to_be_between", "amount")


def history(house, batches: int, judged: bool = True) -> None:
    """A ledger of so many batches of `refine`, an hour apart, each of 100 rows, 3 of which broke a critical rule."""
    now, rows, results = datetime.now(timezone.utc), [], []
    for number in range(batches):
        at = now - timedelta(hours=batches - number)
        key = {
            "job": "orders",
            "flow": "refine",
            "run_id": f"run-{number}",
            "query_id": "query-refine",
            "batch_id": number,
        }
        counts = {name: 0 for name in ops.TABLES["batches"] if name.startswith("rows_")}
        counts |= {
            "rows_read": 100,
            "rows_transformed": 100,
            "rows_written": 95,
            "rows_quarantined": 3,
            "rows_superseded": 2,
        }
        rows.append({**key, **counts, "started_at": at, "duration_ms": 1500, "newest_at": at, "suite_version": "v"})
        for position, (kind, column) in enumerate([RULE] * 2):
            broke = 3 if position == 0 else 0
            result = {
                "expectation_id": f"orders/{position + 1}",
                "expectation": kind,
                "column": column,
                "success": not broke,
            }
            numbers = {"evaluated": 100, "unexpected": broke, "severity": "critical" if position == 0 else "warning"}
            results.append({**key, **result, **numbers, "suite_version": "v"})
    ops.append(house.warehouse, "batches", rows)
    ops.append(house.warehouse, "expectations", results if judged else [])
    runs = [
        {
            "job": "orders",
            "run_id": row["run_id"],
            "started_at": row["started_at"],
            "finished_at": row["started_at"] + timedelta(seconds=90),
            "status": "done",
            "exit_code": 0,
            "suite_version": "v",
        }
        for row in rows
    ]
    ops.append(house.warehouse, "runs", runs)


def reported(house, *arguments: str) -> Path:
    called = house.call("report", *arguments)
    assert called.exit_code == 0, called.stderr
    assert called.stdout.count("\n") == 1
    return Path(called.stdout.strip())


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_it_opens_from_a_file_with_no_error_and_no_request_and_fits_its_window(house, scheme, width):
    history(house, 30)
    house.letter("a1")
    with opened(reported(house), scheme, width) as (page, said, asked):
        assert (said, asked) == ([], [])
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("[data-chart] svg").count() >= 5
        assert page.locator("[data-trend] svg").count() == 1
        pages = page.locator("a[href^=data_docs]").first.get_attribute("href")
    with opened(Path(house.root, "data/reports", pages)) as (page, said, asked):
        assert (said, asked) == ([], [])
        one = page.locator("table a").first.get_attribute("href")
    with opened(Path(house.root, "data/reports", pages).parent / one) as (page, said, asked):
        assert (said, asked) == ([], [])
        assert "3 unexpected values found" in page.inner_text("body")


@pytest.mark.slow
def test_every_figure_is_that_of_the_tables(house):
    history(house, 30)
    for number in range(4):
        house.letter(f"a{number}", hours_ago=number + 1, status="discarded" if number == 3 else "open")
    with opened(reported(house, "orders")) as (page, _, _):
        shown = {each.get_attribute("data-figure"): each.get_attribute("value") for each in page.locator("data").all()}
        texts = {each.get_attribute("data-figure"): each.inner_text() for each in page.locator("data").all()}
    ledger = ops.rows(house.warehouse, "batches", [("flow", "=", "refine")])
    for name in ("rows_read", "rows_written", "rows_quarantined", "rows_superseded"):
        assert int(shown[f"orders.refine.{name}"]) == sum(batch[name] for batch in ledger)
        assert int(shown[f"orders.ingest.{name}"]) == 0
    rules = ops.rows(house.warehouse, "expectations", [("expectation_id", "=", "orders/1")])
    assert int(shown["orders.refine." + ".".join(RULE)]) == sum(rule["unexpected"] for rule in rules)
    letters = ops.rows(house.warehouse, "quarantine")
    assert int(shown["orders.all.open_quarantine"]) == sum(letter["status"] == "open" for letter in letters)
    assert int(shown["orders.refine.letters." + ".".join(RULE)]) == len(letters)
    assert int(shown["orders.last.rows_read"]) == 100
    assert texts["orders.refine.rows_read"] == "3,000"


@pytest.mark.slow
def test_a_script_in_a_quarantined_value_stays_text(house):
    history(house, 2)
    house.letter("a1", f'{{"order_id": 1, "note": "{SCRIPT}"}}'.replace('"broken in"', "'broken in'"))
    house.letter(
        "a2",
        SCRIPT,
        kind="parse",
        reasons=[{"expectation": SCRIPT, "column": SCRIPT, "severity": "critical", "message": SCRIPT}],
    )
    house.ran("bad", error=f"flow refine stopped: {SCRIPT}")
    with opened(reported(house)) as (page, said, asked):
        assert (said, asked) == ([], [])
        assert page.title() == "orders · microbatch report"
        assert page.locator("pre", has_text="<script>document.title").count() == 2
        assert page.locator("main img, main script").count() == 0


@pytest.mark.slow
def test_it_can_be_read_by_keyboard_and_by_a_screen_reader(house):
    history(house, 5)
    house.letter("a1")
    with opened(reported(house)) as (page, _, _):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "To the content"
        assert page.evaluate("document.documentElement.lang") == "en"
        named = "[...document.querySelectorAll('svg[role], [role=region], [role=img]')].map((e) => e.getAttribute('aria-label'))"
        assert all(page.evaluate(named))
        scrolls = "[...document.querySelectorAll('.scroll')].every((each) => each.tabIndex === 0)"
        assert page.evaluate(scrolls)
        headings = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map((each) => Number(each.tagName[1]))")
        assert headings[0] == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(headings))
        assert page.evaluate("document.querySelectorAll('th:not([scope])').length") == 0


@pytest.mark.slow
def test_a_thousand_batches_take_under_five_seconds_and_five_megabytes(house):
    history(house, 1000)
    words = [sys.executable, "-m", "microbatch", "report", "--suite", str(house.root)]
    took = []
    for _ in range(2):  # in seconds of its own: a machine that is busy elsewhere says nothing about the report
        shutil.rmtree(house.root / "data/reports", ignore_errors=True)
        before = os.times()
        called = subprocess.run(words, capture_output=True, text=True, check=True)
        after = os.times()
        took.append(after.children_user - before.children_user + after.children_system - before.children_system)
    path = Path(called.stdout.strip())
    assert min(took) < 5, took
    assert path.stat().st_size < 5_000_000
    assert len(list((path.parent / "data_docs/orders").glob("*/*.html"))) == 20
    everything = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())
    assert everything < 5_000_000


def test_a_masked_column_is_hidden_in_samples_messages_and_observed_values(house):
    conf = house.root / "conf/base/orders.yml"
    conf.write_text(conf.read_text().replace("format: json,", "format: json, mask: [AMOUNT],"))
    house.letter(
        "a1",
        '{"order_id": 1, "amount": "-48151623.00"}',
        reasons=[
            {
                "expectation": RULE[0],
                "column": RULE[1],
                "severity": "critical",
                "message": "amount must be greater than 0, found -48151623.00",
            }
        ],
    )
    house.letter("a2", '{"order_id": 1, "amount": -48151623', kind="parse")
    text = reported(house).read_text()
    assert "48151623" not in text
    assert "amount must be greater than 0, found ***" in text


def test_secrets_are_taken_out(house, monkeypatch):
    monkeypatch.setenv("TOKEN", "s3cr3t-t0ken")
    (house.root / "conf/base/environment.yml").write_text('connections: {x: {url: "http://${env:TOKEN}"}}\n')
    house.letter("a1", '{"order_id": "s3cr3t-t0ken"}')
    house.ran("bad", error="cannot reach s3cr3t-t0ken")
    assert "s3cr3t" not in reported(house).read_text()


def test_a_rewind_is_not_taken_for_the_last_run(house):
    house.ran("run-1", hours_ago=2)
    rewound = {"job": "orders", "run_id": "rewind:1", "started_at": ago(1), "finished_at": ago(1), "status": "rewound"}
    ops.append(house.warehouse, "runs", [rewound])
    suite = load(house.root)
    found = gather(suite, suite.job("orders"), datetime.now(timezone.utc))
    assert found.last_run is not None and found.last_run["run_id"] == "run-1"
    assert len(found.runs) == 2


def test_a_suite_that_never_ran_has_a_page_too(house):
    text = reported(house).read_text()
    assert "never ran" in text
    assert "Nothing is in quarantine." in text


def test_the_path_is_all_that_stands_on_stdout_and_a_job_has_a_page_of_its_own(house):
    assert reported(house) == house.root / "data/reports/index.html"
    assert reported(house, "orders") == house.root / "data/reports/orders.html"


def test_pages_of_batches_that_are_no_longer_the_newest_go(house):
    history(house, 21)
    reported(house)
    folder = house.root / "data/reports/data_docs/orders/refine"
    assert {int(file.name.split("-")[0]) for file in folder.iterdir()} == set(range(1, 21))
    house.batch("ingest", rows_read=1)
    made = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    reported(house)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == made


def test_reports_that_cannot_be_written_are_one_line(house):
    (house.root / "data/reports").write_text("a file")
    called = house.call("report")
    assert called.exit_code == 5
    assert "the report cannot be written" in called.stderr


def test_no_jvm_is_started_and_the_tables_stay_as_they_are(house):
    history(house, 3)
    house.letter("a1")
    before = {name: Table(house.warehouse, f"ops.{name}").version() for name in ops.TABLES}
    script = house.root / "say.py"
    script.write_text(
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from microbatch.cli import group\n"
        f"called = CliRunner().invoke(group, ['report', '--suite', {str(house.root)!r}])\n"
        "assert called.exit_code == 0, called.output\n"
        "context = sys.modules.get('pyspark.core.context')\n"
        "assert context is None or context.SparkContext._gateway is None, 'a JVM was started'\n"
    )
    subprocess.run([sys.executable, str(script)], check=True, timeout=60)
    assert {name: Table(house.warehouse, f"ops.{name}").version() for name in ops.TABLES} == before
