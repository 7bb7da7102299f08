"""Whole runs over an API: what it answers is in the table once, to the digit, and what does not fit is in quarantine."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from microbatch.commands import audit, plan
from microbatch.errors import ConfigError, SourceUnavailable, StateChanged
from microbatch.testing import STEPS, Bench
from tests.sources.rest.conftest import AWAY, Answer, Api, Request

HERE = Path(__file__).resolve().parents[3]
JOB = '''
"""Exchange rates, as they come."""

from microbatch import Append, Flow, Job, Source

RATES = Source("rates", schema="id BIGINT, rate DECIMAL(20,18), at STRING")

JOB = Job(Flow("take", reads=RATES, writes=Append("bronze.rates")))
'''
CONF = """
sources:
  rates:
    kind: rest
    connection: bank
    path: /v1/rates
    records: items
    paginate: {by: cursor, field: next, param: after}
    cursor: {field: at, param: since}
    auth: {bearer: "${env:TEST_TOKEN}"}
    MORE
retry: {attempts: 8, first_wait_s: 0.01, max_wait_s: 1}
"""
ENVIRONMENT = "connections: {bank: {url: '${env:TEST_BANK}/api'}}\n"
TOKEN = "t0ken-of-a-zebra"


class Rates:
    """A bank that publishes rates; `since` means "from", as it does with many."""

    def __init__(self, api: Api) -> None:
        self.api, self.records = api, list[str]()
        api.answer = self.answer

    def publish(self, id_: int, rate: str, at: str | None = None) -> None:
        self.records.append(f'{{"id": {id_}, "rate": {rate}, "at": "{at or f"2024-01-01T00:{id_:04}"}"}}')

    def answer(self, request: Request) -> Answer:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Answer("{}", 401)
        since = request.params.get("since", "")
        wanted = [text for text in self.records if json.loads(text)["at"] >= since]
        start = int(request.params.get("after", 0))
        more = json.dumps(str(start + 3)) if start + 3 < len(wanted) else "null"
        return Answer(f'{{"items": [{", ".join(wanted[start : start + 3])}], "next": {more}}}')


@pytest.fixture
def rates(api: Api) -> Rates:
    return Rates(api)


@pytest.fixture
def bank(bench: Bench, api: Api, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("TEST_TOKEN", TOKEN)
    monkeypatch.setenv("TEST_BANK", api.url)
    bench.write("jobs/rates.py", JOB)
    bench.write("conf/base/rates.yml", CONF.replace("MORE", ""))
    bench.write("conf/base/environment.yml", ENVIRONMENT)
    return bench


def ids(bench: Bench) -> list[int]:
    return sorted(row.id for row in bench.read("bronze.rates").collect())


@pytest.mark.slow
def test_a_server_that_fails_in_one_of_ten_requests_loses_and_doubles_nothing_over_many_runs(
    bank: Bench, api: Api, rates: Rates
):
    api.share, published, chance = 0.1, 0, random.Random(3)
    for _ in range(6):
        for _ in range(chance.randint(0, 12)):
            published += 1
            rates.publish(published, "1.000000000000000001", at=f"2024-01-{published // 5 + 1:02}")
        bank.run("rates")
    assert ids(bank) == list(range(1, published + 1))
    suite = bank.suite()
    assert audit.execute(suite, suite.job("rates")) == 0


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS[1:])
def test_a_batch_that_is_run_again_reads_the_same_bytes_whatever_the_server_says_by_then(
    bank: Bench, api: Api, rates: Rates, step
):
    rates.publish(1, "1.5")
    rates.publish(2, "2.5")
    bank.crash("rates", before=step)
    api.records()  # the server has forgotten everything
    api.answer = lambda request: Answer('{"items": [], "next": null}')
    bank.run("rates")
    assert ids(bank) == [1, 2]
    assert [row["rows_read"] for row in bank.ledger("rates")] == [2]


@pytest.mark.slow
def test_numbers_keep_their_digits_and_what_does_not_fit_is_in_quarantine_with_its_text(
    bank: Bench, api: Api, rates: Rates
):
    bank.write("conf/base/rates.yml", CONF.replace("MORE", "metadata: true"))
    rates.publish(1, "1.123456789012345678")
    rates.records += [
        '{"id": "x", "rate": 1, "at": "2024-01-02"}',
        '{"id": 2, "rate": 1.1234567890123456789, "at": "2024-01-03"}',
    ]
    bank.run("rates")
    (row,) = bank.read("bronze.rates").collect()
    assert (row.id, row.rate) == (1, Decimal("1.123456789012345678"))
    assert row._fetched_at is not None
    letters = {letter.payload: letter.reasons[0].message for letter in bank.quarantine("rates").collect()}
    assert letters == {rates.records[1]: "id does not fit bigint", rates.records[2]: "rate does not fit decimal(20,18)"}
    (batch,) = bank.ledger("rates")
    assert (batch["rows_read"], batch["rows_unparsed"], batch["rows_written"]) == (3, 2, 1)


@pytest.mark.slow
def test_a_token_is_nowhere_but_in_the_request(bank: Bench, api: Api, rates: Rates, capfd, tmp_path: Path):
    rates.publish(1, "1.5")
    bank.run("rates")
    suite = bank.suite()
    plan.execute(suite, suite.job("rates"))
    captured = capfd.readouterr()
    left = [str(file) for file in tmp_path.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]
    assert left == []
    assert TOKEN not in captured.out + captured.err
    assert "JSON over HTTP from bank, /v1/rates" in captured.out
    assert "take: source rates is asked for what is new by a run" in captured.out


@pytest.mark.slow
def test_a_refused_token_stops_with_exit_2_after_one_request_and_a_dead_server_with_exit_5(
    bank: Bench, api: Api, rates: Rates, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TEST_TOKEN", "an-older-zebra")
    report = bank.report("rates")
    assert (report.exit_code, len(api.asked)) == (2, 1)
    assert isinstance(report.errors[0], ConfigError)
    monkeypatch.setenv("TEST_TOKEN", TOKEN)
    api.faults = [AWAY] * 9
    report = bank.report("rates")
    assert (report.exit_code, len(api.asked)) == (5, 1 + 9)
    assert isinstance(report.errors[0], SourceUnavailable)
    api.close()
    assert bank.report("rates").exit_code == 5
    assert not bank.checkpoint("rates", "take").exists()


@pytest.mark.slow
def test_a_spool_file_that_was_changed_or_is_missing_stops_the_flow(bank: Bench, api: Api, rates: Rates):
    rates.publish(1, "1.5")
    bank.crash("rates", before="target")
    (file,) = bank.checkpoint("rates", "take").glob("spool/*/[0-9]*.json")
    text = file.read_text()
    file.unlink()
    with pytest.raises(StateChanged, match="vanished"):
        bank.run("rates")
    file.write_text(text.replace("1.5", "1.7"))
    with pytest.raises(StateChanged, match="changed after it was read"):
        bank.run("rates")


def test_a_run_with_nothing_new_starts_no_spark_and_is_done_in_a_moment(bank: Bench, api: Api, rates: Rates):
    bank.storage = {name: str(bank.root / "data" / name) for name in bank.storage}
    code = (
        "import sys, time; began = time.monotonic(); from microbatch.cli import group\n"
        "try: group(['run', 'rates', '--suite', sys.argv[1]])\n"
        "except SystemExit as ended: assert not ended.code, ended.code\n"
        "assert 'pyspark' not in sys.modules and 'great_expectations' not in sys.modules\n"
        "print(time.monotonic() - began)\n"
    )
    words = [sys.executable, "-c", code, str(bank.root)]
    done = subprocess.run(words, cwd=HERE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(api.asked) == 1
    assert float(done.stdout.splitlines()[-1]) < 5  # a second on a machine that does nothing else


def test_a_run_that_goes_on_leaves_a_server_alone_for_as_long_as_it_asks(bank: Bench, api: Api):
    bank.storage = {name: str(bank.root / "data" / name) for name in bank.storage}
    api.answer = lambda request: Answer("slow down", 429, {"retry-after": "3600"})
    words = [sys.executable, "-m", "microbatch", "run", "rates", "--continuous", "--suite", str(bank.root)]
    with subprocess.Popen(words, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr
        told = next((line for line in run.stderr if "again in" in line), "")
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=60)
    assert "answered 429 Too Many Requests; again in 3600 s" in told
    assert (run.returncode, len(api.asked)) == (5, 1)


@pytest.mark.slow
def test_preview_shows_the_first_page_and_leaves_nothing(bank: Bench, api: Api, rates: Rates, capsys):
    from microbatch.commands import preview

    rates.publish(1, "1.5")
    suite = bank.suite()
    preview.execute(suite, suite.job("rates"), suite.job("rates").flow("take"), 5)
    assert "1.500000000000000000" in capsys.readouterr().out
    assert not bank.checkpoint("rates", "take").exists()


@pytest.mark.slow
def test_a_changed_path_stops_with_exit_2_and_another_server_does_not(
    bank: Bench, api: Api, other: Api, rates: Rates, monkeypatch: pytest.MonkeyPatch
):
    rates.publish(1, "1.5")
    bank.run("rates")
    monkeypatch.setenv("TEST_BANK", other.url)
    Rates(other).publish(2, "2.5")
    bank.run("rates")
    assert ids(bank) == [1, 2]
    bank.write("conf/base/rates.yml", CONF.replace("MORE", "").replace("/v1/rates", "/v2/rates"))
    with pytest.raises(ConfigError, match="path was '/v1/rates', is '/v2/rates'"):
        bank.run("rates")
