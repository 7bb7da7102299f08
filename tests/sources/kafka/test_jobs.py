"""Whole runs over a real broker: each message once, whatever happens to it, to the topic or to the broker."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from microbatch.commands import audit, preview
from microbatch.errors import ConfigError, SourceUnavailable, StateChanged
from microbatch.testing import STEPS, Bench
from tests.servers.kafka import PASSWORD, Broker
from tests.sources.kafka.conftest import Clicks, Topic

pytestmark = pytest.mark.slow  # a broker and Spark

HERE = Path(__file__).resolve().parents[3]


def test_each_message_is_a_row_and_what_does_not_fit_a_letter_with_its_text(clicks, topic: Topic):
    job = clicks()
    bad = ['{"id": "x"}', '{"id": 3, "amount": 1.005}', "{broken", '{"id": 4} trailing', " ", "[1]"]
    topic.send({"id": 1, "amount": 1.5}, *[text.encode() for text in bad], None, b'{"id": 5, "x": "\xff"}', {"id": 2})
    job.run()
    assert job.ids() == [1, 2]
    payloads = [payload for payload, _ in job.letters()]
    assert payloads == sorted([*bad[:4], "[1]", "(no value)", "(no value)", '{"id": 5, "x": "\ufffd"}'])
    (batch,) = job.bench.ledger("clicks")
    assert [batch[f"rows_{what}"] for what in ("read", "unparsed", "written")] == [10, 8, 2]
    assert batch["newest_at"] is not None
    suite = job.bench.suite()
    assert audit.execute(suite, suite.job("clicks")) == 0
    assert job.states() == ["idle"]


def test_messages_come_in_batches_of_the_size_conf_says_and_metadata_says_where_from(clicks, topic: Topic):
    job = clicks(more="max_rows_per_batch: 4, metadata: true")
    for number in range(10):
        topic.send({"id": number}, key=b"k%d" % number)
    assert [outcome.rows_read for outcome in job.run()] == [4, 4, 2]
    rows = {row.id: row for row in job.bench.read("bronze.clicks").collect()}
    assert [(rows[n]._topic, rows[n]._partition, rows[n]._offset, rows[n]._key) for n in (0, 9)] == [
        (topic.name, 0, 0, "k0"),
        (topic.name, 0, 9, "k9"),
    ]
    assert rows[0]._timestamp is not None


@pytest.mark.parametrize("step", STEPS[1:])
def test_a_batch_that_is_run_again_reads_the_same_messages(clicks, topic: Topic, step):
    job = clicks()
    topic.send({"id": 1}, {"id": 2}, b"{broken")
    job.bench.crash("clicks", before=step)
    topic.send({"id": 3})
    job.run()
    assert job.ids() == [1, 2, 3]
    assert len(job.letters()) == 1
    assert sum(row["rows_read"] for row in job.bench.ledger("clicks")) == 4


def test_latest_begins_when_the_first_run_looked_and_loses_nothing_from_then_on(clicks, topic: Topic):
    job = clicks(more="starting: latest")
    topic.send({"id": 1})
    assert job.states() == ["idle"]
    topic.send({"id": 2})
    topic.widen(2)
    topic.send({"id": 3}, partition=1)
    job.run()
    assert job.ids() == [2, 3]


def test_a_partition_that_is_added_is_read_from_its_beginning(clicks, topic: Topic):
    job = clicks()
    topic.send({"id": 1})
    job.run()
    topic.widen(3)
    topic.send({"id": 2}, partition=2)
    job.run()
    assert job.ids() == [1, 2]


def test_what_a_transaction_took_back_was_never_said_and_an_open_one_is_waited_for(clicks, topic: Topic):
    job = clicks()
    topic.send({"id": 1})
    topic.transaction({"id": 2}, {"id": 3}, commit=False)
    topic.transaction({"id": 4}, commit=True)
    job.run()
    assert job.ids() == [1, 4]
    assert job.states() == ["idle"]


def test_where_only_marks_of_transactions_are_left_there_is_nothing_to_do(clicks, topic: Topic):
    job = clicks()
    topic.send({"id": 1})
    job.run()
    topic.transaction({"id": 2}, commit=False)
    before = job.bench.versions()
    assert [job.states() for _ in range(2)] == [["idle"], ["idle"]]
    assert job.bench.versions() == before
    topic.send({"id": 3})
    job.run()
    assert job.ids() == [1, 3]


def test_messages_that_aged_out_before_they_were_read_stop_the_flow_with_their_number(clicks, topic: Topic):
    job = clicks()
    topic.send({"id": 1})
    job.run()
    topic.send(*[{"id": number} for number in range(2, 12)])
    topic.age_out()
    with pytest.raises(StateChanged, match="lost up to 10 messages before they were read: partition 0") as stopped:
        job.run()
    assert "--accept checkpoint" in str(stopped.value)
    assert job.ids() == [1]


def test_a_topic_that_was_made_anew_stops_the_flow_even_where_its_offsets_fit(clicks, topic: Topic):
    job = clicks()
    topic.send({"id": 1})
    job.run()
    topic.delete()
    with pytest.raises(StateChanged, match="is gone"):
        job.run()
    topic.make()
    topic.send({"id": 2}, {"id": 3})
    with pytest.raises(StateChanged, match="was made anew since it was read"):
        job.run()
    assert job.ids() == [1]


def test_a_topic_that_is_not_there_is_a_mistake_in_conf_that_names_the_nearest(clicks, topic: Topic):
    job = clicks()
    job.bench.write(
        "conf/base/clicks.yml",
        (job.bench.root / "conf/base/clicks.yml").read_text().replace(topic.name, f"{topic.name}x"),
    )
    with pytest.raises(ConfigError, match=f"did you mean {topic.name}"):
        job.run()


def test_a_broker_that_is_away_stops_with_exit_5_and_the_next_run_goes_on(bench: Bench, jars: Path, tmp_path: Path):
    broker = Broker(tmp_path / "broker", jars)
    broker.start()
    try:
        job = Clicks(bench, Topic(broker))
        job.topic.send({"id": 1})
        job.run()
        broker.kill()
        report = bench.report("clicks")
        assert (report.exit_code, type(report.errors[0])) == (5, SourceUnavailable)
        broker.start()
        job.topic.send({"id": 2})
        job.run()
        assert job.ids() == [1, 2]
    finally:
        broker.kill()


def test_a_broker_that_is_killed_in_the_middle_of_a_batch_loses_and_doubles_nothing(
    bench: Bench, jars: Path, tmp_path: Path
):
    broker = Broker(tmp_path / "broker", jars)
    broker.start()
    try:
        more = "max_rows_per_batch: 50, options: {default.api.timeout.ms: 3000, request.timeout.ms: 2000}"
        job = Clicks(bench, Topic(broker), more=more)
        # Long ones, of which a client does not hold the next fifty in its memory already.
        job.topic.send(*[{"id": number, "more": "x" * 100_000} for number in range(100)])

        from microbatch.runner import run

        def reached(step: str, batch_id: int) -> None:
            if (step, batch_id) == ("keep", 1):
                broker.kill()

        report = run(bench.suite(), ["clicks"], reached=reached)
        assert report.exit_code == 5, report.errors
        assert len(job.ids()) == 50
        broker.start()
        job.run()
        assert job.ids() == list(range(100))
        suite = bench.suite()
        assert audit.execute(suite, suite.job("clicks")) == 0
    finally:
        broker.kill()


SIGNED = (
    'options: {{security.protocol: SASL_PLAINTEXT, sasl.mechanism: PLAIN, sasl.username: shop, sasl.password: "{}"}}'
)


def test_a_password_is_sent_by_both_clients_and_a_wrong_one_stops_with_exit_2(clicks, topic: Topic, broker: Broker):
    job = clicks(more=SIGNED.format(PASSWORD), servers=broker.signed)
    topic.send({"id": 1})
    job.run()
    assert job.ids() == [1]
    job.declare(more=SIGNED.format("wrong"), servers=broker.signed)
    with pytest.raises(ConfigError, match="the broker refuses: .*Invalid username or password"):
        job.run()


def test_a_broker_is_known_by_its_certificate_and_one_that_nobody_vouches_for_is_refused(
    clicks, topic: Topic, broker: Broker, tmp_path: Path
):
    safe = SIGNED.format(PASSWORD).replace("SASL_PLAINTEXT", "SASL_SSL")
    job = clicks(more=safe.replace("}", f", ssl.ca.location: {broker.ca}}}"), servers=broker.safe)
    topic.send({"id": 1})
    job.run()
    assert job.ids() == [1]
    job.declare(more=safe, servers=broker.safe)
    with pytest.raises(ConfigError, match="the broker refuses: .*certificate verify failed"):
        job.run()


def test_a_password_is_nowhere_not_in_the_event_log_of_spark_either(
    clicks, topic: Topic, broker: Broker, tmp_path: Path
):
    job = clicks(more=SIGNED.format("${env:TEST_PASSWORD}"), servers=broker.signed)
    bench, log = job.bench, tmp_path / "events"
    log.mkdir()
    settings = {"enabled": "true", "dir": log, "compress": "false"}
    lines = "".join(f"spark.eventLog.{name} {value}\n" for name, value in settings.items())
    bench.write("conf/local/spark.conf", f"{lines}spark.master local[1]\n")
    topic.send({"id": 1})
    words = [sys.executable, "-m", "microbatch", "run", "clicks", "--suite", str(bench.root), "--debug"]
    env = {**os.environ, "TEST_PASSWORD": PASSWORD, "PYTHONPATH": str(HERE)}
    ended = subprocess.run(words, cwd=HERE, env=env, capture_output=True, text=True, timeout=170)
    assert ended.returncode == 0, ended.stderr
    events = [file.read_text() for file in log.rglob("*") if file.is_file()]
    assert "clicks.take" in "".join(events)
    left = [file for file in tmp_path.rglob("*") if file.is_file() and b"s3cret" in file.read_bytes()]
    assert left == []
    assert "s3cret" not in ended.stdout + ended.stderr + "".join(events)


def test_a_run_with_nothing_new_starts_no_spark(clicks, topic: Topic, tmp_path: Path):
    job = clicks()
    code = (
        "import sys, time; began = time.monotonic(); from microbatch.cli import group\n"
        "try: group(['run', 'clicks', '--suite', sys.argv[1]])\n"
        "except SystemExit as ended: assert not ended.code, ended.code\n"
        "assert 'pyspark' not in sys.modules and 'great_expectations' not in sys.modules\n"
        "print(time.monotonic() - began)\n"
    )
    words = [sys.executable, "-c", code, str(job.bench.root)]
    done = subprocess.run(words, cwd=HERE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert float(done.stdout.splitlines()[-1]) < 5  # a second on a machine that does nothing else


def test_preview_shows_messages_and_takes_none_in(clicks, topic: Topic, capsys: pytest.CaptureFixture[str]):
    job = clicks()
    topic.send({"id": 4711})
    suite = job.bench.suite()
    preview.execute(suite, suite.job("clicks"), suite.job("clicks").flow("take"), 5)
    assert "4711" in capsys.readouterr().out
    assert not job.bench.checkpoint("clicks", "take").exists()


def test_a_producer_that_counts_microseconds_stops_nothing(clicks, topic: Topic):
    topic.delete()
    topic.make(config={"message.timestamp.after.max.ms": str(2**62)})  # as brokers before 4.0 have it
    job = clicks()
    topic.send({"id": 1}, timestamp_ms=1_700_000_000_000_000)
    job.run()
    assert job.ids() == [1]
    assert job.bench.ledger("clicks")[-1]["newest_at"] is None


def test_csv_messages_are_one_line_each_and_nothing_of_a_message_is_cut_off(clicks, topic: Topic):
    job = clicks(schema="id BIGINT, value DECIMAL(10,2)", values="csv")
    bad = ["x,1", "3", "4,5,6", '5,"6', "6,7\n7,8", "", "8,1.005"]
    topic.send(b"1,1.50", b'"2",\r\n', *[text.encode() for text in bad], None)
    job.run()
    assert sorted((row.id, row.value) for row in job.bench.read("bronze.clicks").collect()) == [
        (1, Decimal("1.50")),
        (2, None),
    ]
    assert [payload for payload, _ in job.letters()] == sorted([*bad[:5], "(no value)", "(no value)", "8,1.005"])


def test_raw_messages_are_key_and_value_as_they_are(clicks, topic: Topic):
    job = clicks(schema="key STRING, value BINARY", values="raw")
    topic.send(b"\xff\x00", None, key=b"a")
    topic.send(b"x", key=b"\xff")
    job.run()
    rows = job.bench.read("bronze.clicks").collect()
    assert sorted((row.key, row.value) for row in rows if row.value is not None) == [("a", bytearray(b"\xff\x00"))]
    assert len(rows) == 2
    ((payload, told),) = job.letters()
    assert payload == "x"
    assert told == f"key is not valid UTF-8; its bytes in base64: {base64.b64encode(bytes([255])).decode()}"
    job.declare(schema="id BIGINT", values="raw")
    with pytest.raises(ConfigError, match="a raw message has the columns key and value"):
        job.run()


UPSERT = '''
"""Orders as the database has them."""

from microbatch import Flow, Job, Source, Upsert

ORDERS = Source("clicks", schema="id BIGINT, amount DECIMAL(38,18), note STRING")

JOB = Job(Flow("take", reads=ORDERS, writes=Upsert("bronze.clicks", keys=["id"], newest_by=["_lsn", "_offset"],
                                                   delete_when="_op = 'delete'")))
'''


def envelope(op: str, row: str, lsn: int, schema: bool = False) -> bytes:
    """A change as Debezium's PostgreSQL connector writes it."""
    before, after = (row, "null") if op == "d" else ("null", row)
    source = f'{{"connector": "postgresql", "lsn": {lsn}, "ts_ms": 1704067200000, "ts_us": 1704067200123456}}'
    text = f'{{"before": {before}, "after": {after}, "source": {source}, "op": "{op}", "ts_ms": 1}}'
    return (f'{{"schema": {{"type": "struct"}}, "payload": {text}}}' if schema else text).encode()


@pytest.mark.parametrize("schema", [False, True], ids=["bare", "with its schema"])
def test_debezium_changes_end_in_the_table_the_database_has(clicks, topic: Topic, schema: bool):
    """Updates that share an LSN, deletes with their tombstones, a key that comes back, and what is no change of a row."""
    job = clicks(values="debezium")
    job.bench.write("jobs/clicks.py", UPSERT)
    exact = "12345678901234567890.123456789012345678"

    def change(op: str, id_: int, lsn: int, amount: str = "1", note: str = '"n"') -> bytes:
        return envelope(op, f'{{"id": {id_}, "amount": {amount}, "note": {note}}}', lsn, schema)

    topic.send(
        change("r", 1, 10), change("c", 2, 11, exact, '{"price" : 1.10}'), change("c", 3, 12), change("c", 4, 13)
    )
    topic.send(change("u", 1, 14, "2"), change("u", 1, 14, "3"), change("d", 3, 15), None, change("d", 4, 16), None)
    job.run()
    topic.send(change("c", 4, 17, "7"), change("u", 3, 9, "9"))
    bad = [
        envelope("t", "null", 18, schema),
        b'{"id": 1}',
        b'{"op": "u", "after": {"id": 1}} trailing',
        envelope("u", '{"id": 2, "note": "__debezium_unavailable_value"}', 19, schema),
        envelope("u", "null", 20, schema),
        envelope("u", '{"id": "x"}', 21, schema),
    ]
    topic.send(*bad)
    job.run()
    rows = {row.id: row for row in job.bench.read("bronze.clicks").collect()}
    assert {id_: format(row.amount, "f").rstrip("0").rstrip(".") for id_, row in rows.items()} == {
        1: "3",
        2: exact,
        4: "7",
    }
    assert (rows[1]._op, rows[1]._lsn, rows[1]._committed_at.isoformat()) == (
        "update",
        14,
        "2024-01-01T00:00:00.123456",
    )
    assert rows[2].note == '{"price" : 1.10}'
    assert [payload for payload, _ in job.letters()] == sorted(text.decode() for text in bad)
    first, second = job.bench.ledger("clicks")
    assert (first["rows_read"], second["rows_read"], second["rows_unparsed"]) == (8, 8, 6)
    suite = job.bench.suite()
    assert audit.execute(suite, suite.job("clicks")) == 0


def test_a_letter_of_debezium_is_replayed_with_its_place_in_the_order(clicks, topic: Topic):
    from microbatch.commands import replay
    from microbatch.commands.quarantine import Letters

    job = clicks(values="debezium")
    job.bench.write("jobs/clicks.py", UPSERT.replace("DECIMAL(38,18)", "BIGINT"))
    topic.send(envelope("c", '{"id": 1, "amount": 1.5}', 10), envelope("c", '{"id": 2, "amount": 2}', 11))
    job.run()
    assert job.ids() == [2]
    suite = job.bench.suite()
    replay.replay(Letters(suite, suite.job("clicks"), None, None, None))
    assert job.ids() == [2]
    row = json.loads(job.letters()[0][0])
    assert row["after"] == {"id": 1, "amount": 1.5}
