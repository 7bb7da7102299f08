"""A secret leaves the process nowhere: not on a terminal, not in a table, a checkpoint, a letter, a page or Spark's event log."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from click.testing import CliRunner, Result

from microbatch.cli import group
from microbatch.config.interpolate import secrets_in
from microbatch.errors import TransientError, redacted, shortened
from microbatch.observers import Lines
from microbatch.runner import run
from microbatch.sink import ops
from microbatch.testing import Bench
from tests import orders as suite
from tests.orders import order

HERE = Path(__file__).resolve().parent.parent
# Its middle is searched for, so that a secret that was taken out in part is found too.
MARK = "zebra"
PASSWORD = f"""p@{MARK}:s/e%7"q'x\\é z"""
URI = f"postgresql://shop:{quote(PASSWORD, safe='')}@db.invalid/shop"

ENVIRONMENT = """
storage: {landing: data/landing, warehouse: data/warehouse, checkpoints: data/checkpoints, reports: data/reports}
connections:
  shop:
    uri: "${env:TEST_URI}"
    headers: {authorization: "Bearer ${env:TEST_PASSWORD}"}
    auth: {basic: [me, "${env:TEST_PASSWORD}"]}
channels: {ops: {url: "https://hooks.invalid/${env:TEST_PASSWORD}"}}
"""
CONF = """
owner: "${env:TEST_PASSWORD}"
sources:
  orders: {kind: files, format: json, path: "${landing}/orders", volume: "${env:TEST_PASSWORD}",
           options: {password: "${env:TEST_PASSWORD}", uri: "${env:TEST_URI}", comment: "${env:TEST_PASSWORD}"}}
alerts: [{when: "failed > 0", notify: [ops]}]
retry: {attempts: 0}
"""
TELLING = '''
import os
from urllib.parse import quote

from pyspark.sql import functions as F

SECRET = os.environ["TEST_PASSWORD"]


def refine(orders):
    """Add the cents."""
    HOW
'''
GOOD = 'return orders.withColumn("cents", F.lit(1).cast("bigint"))'
WAYS = {
    "as it is": 'raise ValueError("cannot reach " + SECRET)',
    "in its uri": 'raise ConnectionError("cannot reach " + os.environ["TEST_URI"])',
    "encoded": 'raise ValueError("cannot reach http://db.invalid/?password=" + quote(SECRET, safe=""))',
    "where a long text is cut": 'raise ValueError("reach " * 48 + SECRET)',
    "where a long line of Spark's is cut": 'return orders.withColumn("cents", F.raise_error(F.lit("reach " * 46 + SECRET)))',
    "as a key": "return {}[SECRET]",
    "quoted": 'raise RuntimeError(f"cannot reach {SECRET!r} or {[SECRET]}")',
    "as the cause": 'raise RuntimeError("cannot reach it") from ValueError(SECRET)',
    "in many lines": 'raise ValueError("\\n".join(["first", SECRET, "last"]))',
    "ending the process": "raise SystemExit(SECRET)",
    "on an executor": 'return orders.withColumn("cents", F.raise_error(F.lit(SECRET)).cast("bigint"))',
    "as a column": "return orders.select(F.col(SECRET))",
    "in a bad path": "return orders.sparkSession.read.format('delta').load('/nowhere/' + SECRET)",
}


@pytest.fixture
def shop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A suite whose conf takes secrets from the environment wherever it may, and one file of orders."""
    monkeypatch.setenv("TEST_PASSWORD", PASSWORD)
    monkeypatch.setenv("TEST_URI", URI)
    bench.write("jobs/orders.py", suite.ORDERS_JOB)
    bench.write("transforms/orders.py", TELLING.replace("HOW", GOOD))
    bench.write("expectations/orders/orders.yml", suite.ORDERS_RULES)
    bench.write("conf/base/orders.yml", CONF)
    bench.write("conf/base/environment.yml", ENVIRONMENT)
    bench.storage = {name: str(bench.root / "data" / name) for name in bench.storage}
    bench.land("orders", order(1), order(2, "-1.00"), "{broken")
    return bench


def call(bench: Bench, *words: str) -> Result:
    return CliRunner().invoke(group, [*words, "--suite", str(bench.root)])


def held(bench: Bench) -> Iterator[str]:
    """All that a run left: its files as they are, and the engine's tables as text."""
    for file in (bench.root / "data").rglob("*"):
        if file.is_file() and MARK.encode() in file.read_bytes():
            yield str(file)
    for name in ops.TABLES:
        for row in ops.rows(bench.storage["warehouse"], name):
            if MARK in str(row):
                yield f"ops.{name}: {row}"


@pytest.mark.slow
def test_no_command_shows_a_secret_of_the_conf_or_leaves_it_anywhere(shop: Bench, capfd: pytest.CaptureFixture[str]):
    commands = [("plan", "orders"), ("run", "orders"), ("run", "orders", "--debug"), ("status",), ("status", "--json")]
    commands += [("docs", "orders"), ("preview", "orders", "--flow", "ingest"), ("audit", "orders")]
    commands += [("quarantine", "list", "orders"), ("quarantine", "show", "orders"), ("quarantine", "replay", "orders")]
    for words in commands:
        ended = call(shop, *words)
        assert ended.exit_code == 0, (words, ended.output)
        assert MARK not in ended.output, words
    captured = capfd.readouterr()
    assert MARK not in captured.out + captured.err
    assert list(held(shop)) == []


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_no_error_shows_a_secret_whoever_raises_the_text(shop: Bench, capfd: pytest.CaptureFixture[str], way: str):
    shop.write("transforms/orders.py", TELLING.replace("HOW", WAYS[way]))
    for words in (("run", "orders"), ("run", "orders", "--debug"), ("plan", "orders"), ("status",), ("docs", "orders")):
        ended = call(shop, *words)
        assert MARK not in ended.output, words
    captured = capfd.readouterr()
    assert MARK not in captured.out + captured.err
    assert list(held(shop)) == []


def test_a_job_file_that_raises_with_a_secret_does_not_show_it_in_a_traceback(shop: Bench):
    shop.write("jobs/orders.py", 'import os\n\nraise KeyError(os.environ["TEST_PASSWORD"])\n')
    for words in (("plan", "orders"), ("plan", "orders", "--debug")):
        ended = call(shop, *words)
        assert ended.exit_code == 2
        assert MARK not in ended.output


@pytest.mark.slow
def test_the_event_log_of_spark_holds_no_secret_of_the_conf(shop: Bench, tmp_path: Path):
    """In a process of its own, for it is switched on when Spark starts; what a parser is told stands in the plans there."""
    log = tmp_path / "events"
    log.mkdir()
    settings = {"enabled": "true", "dir": log, "compress": "false"}
    lines = "".join(f"spark.eventLog.{name} {value}\n" for name, value in settings.items())
    shop.write("conf/local/spark.conf", f"{lines}spark.master local[1]\n")
    words = [sys.executable, "-m", "microbatch", "run", "orders", "--suite", str(shop.root)]
    ended = subprocess.run(words, cwd=HERE, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    events = [file.read_bytes() for file in log.rglob("*") if file.is_file()]
    assert b"orders.ingest" in b"".join(events)
    assert MARK not in ended.stdout + ended.stderr
    assert MARK.encode() not in b"".join(events)


def test_what_is_said_of_a_retry_shows_no_secret(shop: Bench, capfd: pytest.CaptureFixture[str]):
    conf = (shop.root / "conf/base/orders.yml").read_text()
    shop.write("conf/base/orders.yml", conf.replace("{attempts: 0}", "{attempts: 1, first_wait_s: 0.01}"))

    def reached(step: str, batch_id: int) -> None:
        raise TransientError(f"Connection refused: {URI}")

    report = run(shop.suite(), ["orders"], observer=Lines(sys.stderr), reached=reached)
    assert report.exit_code == 5
    captured = capfd.readouterr()
    assert "Connection refused: ***; again in" in captured.err
    assert MARK not in captured.out + captured.err
    assert list(held(shop)) == []


@pytest.mark.parametrize(
    "written",
    [
        PASSWORD,
        quote(PASSWORD),
        quote(PASSWORD, safe=""),
        quote_plus(PASSWORD),
        quote(PASSWORD, safe="").lower(),
        quote(quote(PASSWORD, safe="")),
        repr(PASSWORD)[1:-1],
        json.dumps(PASSWORD)[1:-1],
        json.dumps(PASSWORD, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(PASSWORD))[3:-3],
        PASSWORD.encode("unicode_escape").decode(),
    ],
)
def test_a_secret_is_found_however_it_is_written(written: str):
    assert redacted(f"at {written} it ends", [PASSWORD]) == "at *** it ends"


@pytest.mark.parametrize("secret", ["s3cret-token\n", "s3cret\n  token", "s3cret  token "])
def test_a_secret_with_blanks_is_found_where_they_were_changed_or_left_out(secret: str):
    for text in (secret, secret.strip(), " ".join(secret.split())):
        assert redacted(f"cannot use {text.strip()}", secrets_in(secret)) == "cannot use ***"


def test_a_secret_of_two_lines_is_taken_out_of_an_error_of_several(shop: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEST_PASSWORD", f"{MARK}-one\n{MARK}-two")
    job = shop.root / "transforms" / "orders.py"
    job.write_text(job.read_text() + "\n\nraise ValueError(f'cannot use {SECRET}')\n")
    ended = call(shop, "status")
    assert ended.exit_code == 2
    assert MARK not in ended.output


def test_of_two_secrets_of_which_one_holds_the_other_nothing_is_left():
    assert redacted("abcdef abc", ["abc", "abcdef"]) == "*** ***"


def test_a_long_text_is_cut_between_words_so_that_no_part_of_a_secret_is_left():
    texts = (redacted(shortened(f"{'x' * length} {MARK}", 300), [MARK]) for length in range(285, 300))
    assert {text.lstrip("x") for text in texts} == {" ***", " …"}
