"""What conf may say of a source, kind by kind: each mistake is found before Spark, and named."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from microbatch.config import load
from microbatch.config.kinds import KINDS
from microbatch.errors import ConfigError
from tests.config.conftest import write

JOB = '''
"""A job over one source."""

from microbatch import Append, Flow, Job, Source

JOB = Job(Flow("take", reads=Source("things", schema="id BIGINT"), writes=Append("bronze.things")))
'''
CONNECTIONS = """
connections:
  bank: {url: https://bank.invalid/api}
  bus:
    servers: "a:9092,b:9092"
    options: {security.protocol: SASL_SSL, sasl.mechanism: PLAIN, sasl.username: u, sasl.password: p}
  java: {servers: "a:9092", options: {sasl.jaas.config: "x"}}
  slash: {url: "http://me:s3cret/part@x/"}
  none: {}
"""


def problems(folder: Path, source: str) -> str:
    """What is wrong with a suite whose one source this is; empty where nothing is."""
    files = {"jobs/things.py": JOB, "conf/base/environment.yml": CONNECTIONS}
    write(folder, {**files, "conf/base/things.yml": f"sources:\n  things: {{{source}}}\n"})
    try:
        load(folder)
    except ConfigError as mistake:
        return str(mistake)
    return ""


@pytest.mark.parametrize(
    "source",
    [
        "kind: rest, connection: bank, path: /v1/things",
        "kind: rest, url: 'http://127.0.0.1:80/x', records: data.items, paginate: {by: link}, cursor: {field: at, param: since}",
        "kind: rest, connection: bank, paginate: {by: link, field: next}, auth: {bearer: t}, headers: {X-Key: k}",
        "kind: rest, connection: bank, paginate: {by: cursor, field: next, param: after}, params: {n: 5, all: true, q: text}",
        "kind: rest, connection: bank, paginate: {by: offset, param: offset, limit_param: limit, limit: 100}",
        "kind: rest, connection: bank, paginate: {by: page, param: page, first: 0}, rate_per_s: 0.5, timeout_s: 5",
        "kind: kafka, connection: bus, topic: t, format: json, starting: latest, max_rows_per_batch: 10, metadata: true",
        "kind: kafka, servers: ['a:9092'], topic: t, format: csv, options: {sep: ';', fetch.max.bytes: 100}",
        "kind: delta, path: '${landing}/things', starting_version: 0, max_files_per_batch: 5",
        "kind: delta, table: other.things, unknown_fields: rescue",
    ],
)
def test_what_the_contract_names_is_taken(tmp_path: Path, source: str):
    assert problems(tmp_path, source) == ""


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("kind: rest, path: /x", "sources.things.connection: or url is needed: one of the two"),
        (
            "kind: rest, connection: bank, url: 'http://x'",
            "sources.things.connection: or url is needed: one of the two",
        ),
        ("kind: rest, connection: none", "connection none has no url; a rest source needs one"),
        ("kind: rest, url: 'ftp://x'", "sources.things.url: must begin with http:// or https:// and name a host"),
        ("kind: rest, url: 'http://me:s3cret/part@x/'", "sources.things.url: must begin with http:// or https://"),
        ("kind: rest, url: 'http://me:s3cret/part@x/'", "in a user or password write / as %2F"),
        ("kind: rest, connection: slash", "the url of connection slash is no http:// or https:// with a host"),
        (
            "kind: postgres, connection: bank, table: t, cursor: c",
            "connection bank has no uri; a postgres source needs",
        ),
        ("kind: rest, connection: bank, path: 'http://x/y'", "sources.things.path: is the part behind the server"),
        (
            "kind: rest, connection: bank, paginate: {by: page}",
            "sources.things.paginate.param: is needed with by: page",
        ),
        (
            "kind: rest, connection: bank, paginate: {by: link, param: p}",
            "sources.things.paginate.param: does not go with by: link, which has field",
        ),
        (
            "kind: rest, connection: bank, paginate: {by: offset, param: o, limit: 5}",
            "sources.things.paginate.limit: goes with limit_param",
        ),
        ("kind: rest, connection: bank, paginate: {by: lnk}", "must be one of link, cursor, offset, page, not lnk"),
        ("kind: rest, connection: bank, cursor: {feild: at, param: p}", "did you mean field?"),
        ("kind: rest, connection: bank, auth: {bearer: t, basic: [u, p]}", "says both bearer and basic"),
        ("kind: rest, connection: bank, auth: {}", "says neither bearer nor basic; write one of the two"),
        ("kind: rest, connection: bnak", "did you mean bank?"),
        ("kind: kafka, topic: t, format: json", "sources.things.connection: or servers is needed: one of the two"),
        ("kind: kafka, connection: none, topic: t, format: json", "connection none has no servers"),
        (
            "kind: kafka, connection: java, topic: t, format: json",
            "write sasl.mechanism, sasl.username and sasl.password",
        ),
        ("kind: kafka, connection: bus, topic: t, format: avro", "must be one of json, csv, raw, debezium, not avro"),
        (
            "kind: kafka, servers: a, topic: t, format: json, options: {group.id: x}",
            "options.group.id: is not allowed: it has no meaning: offsets are kept in the flow's checkpoint",
        ),
        (
            "kind: kafka, servers: a, topic: t, format: json, options: {kafka.failOnDataLoss: false}",
            "options.kafka.failOnDataLoss: is not allowed: it is always true",
        ),
        (
            "kind: kafka, servers: a, topic: t, format: json, options: {sasl.username: u}",
            "sasl.mechanism must be one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512",
        ),
        ("kind: kafka, servers: a, topic: t, format: csv, unknown_fields: fail", "csv carries no field names"),
        ("kind: delta", "sources.things.path: or table is needed: one of the two"),
        ("kind: delta, table: things", "is not schema.name"),
        ("kind: delta, path: ../things", "leaves the suite"),
    ],
)
def test_a_mistake_is_named_with_its_key(tmp_path: Path, source: str, told: str):
    assert told in problems(tmp_path, source)


def test_a_message_shows_nothing_of_what_may_be_a_secret(tmp_path: Path):
    for source in (
        "kind: rest, connection: bank, auth: {bearer: zebra, basic: [u, zebra]}",
        "kind: rest, url: 'ftp://zebra@x'",
        "kind: rest, url: 'http://me:zebra/part@x/'",
        "kind: kafka, servers: a, topic: t, format: json, options: {sasl.password: zebra}",
        "kind: kafka, servers: a, topic: t, format: json, options: {sasl.password: [zebra]}",
    ):
        found = problems(tmp_path, source)
        assert found
        assert "zebra" not in found


def test_the_columns_that_a_source_adds_are_those_that_a_flow_sees():
    def adds(kind: str, **conf: object) -> tuple[str, ...]:
        return KINDS[kind].model_validate({"kind": kind, **conf}).adds()

    place = {"servers": "a", "topic": "t"}
    assert adds("rest", url="http://x", metadata=True, unknown_fields="rescue") == (
        "_fetched_at TIMESTAMP",
        "_rescued STRING",
    )
    assert adds("kafka", **place, format="json") == ()
    places = ("_topic STRING", "_partition INT", "_offset BIGINT", "_timestamp TIMESTAMP", "_key STRING")
    change = ("_op STRING", "_lsn BIGINT", "_committed_at TIMESTAMP")
    assert adds("kafka", **place, format="json", metadata=True) == places
    assert adds("kafka", **place, format="debezium") == (*change, "_offset BIGINT")
    assert adds("kafka", **place, format="debezium", metadata=True) == (*change, *places)
    with pytest.raises(ValidationError):
        adds("delta", path="/x", unknown_fields="drop")
