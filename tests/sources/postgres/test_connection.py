"""How a connection is written in conf, and how little of it is ever shown. No server is asked."""

from __future__ import annotations

import pickle

import pytest

from microbatch.errors import ConfigError, MicrobatchError, Problem, StateChanged, carried, uncarried
from microbatch.retry import classify
from microbatch.sources.postgres.catalog import fields_of
from microbatch.sources.postgres.connection import Server, literal, quoted

NAMES = ("host", "port", "user", "password", "dbname", "sslmode")


def server(uri: str, **options: str | int | bool) -> Server:
    return Server("orders", "ingest", "shop", uri, options)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql://me:pw@db:5433/shop", ("db", "5433", "me", "pw", "shop", None)),
        ("postgres://db/shop?sslmode=require", ("db", None, None, None, "shop", "require")),
        ("postgresql://me:p%40%3A%2F%25@db/shop", ("db", None, "me", "p@:/%", "shop", None)),
        ("postgresql://me:p@ss@db/shop", ("db", None, "me", "p@ss", "shop", None)),
        ("postgresql:///shop?host=/var/run/postgresql", ("/var/run/postgresql", None, None, None, "shop", None)),
        ("postgresql://me@%2Fvar%2Frun/shop", ("/var/run", None, "me", None, "shop", None)),
        ("postgresql://a:1,b:2/shop", ("a,b", "1,2", None, None, "shop", None)),
        ("postgresql://[::1]:5433/shop", ("::1", "5433", None, None, "shop", None)),
        ("host=db user=me password='p w'", ("db", None, "me", "p w", None, None)),
    ],
)
def test_a_uri_is_read_as_libpq_reads_it(uri: str, expected: tuple):
    found = server(uri).parameters()
    assert tuple(found.get(name) for name in NAMES) == expected


def test_options_of_a_connection_are_parameters_too():
    assert (
        server("postgresql://db/shop", sslmode="verify-full", connect_timeout=3).parameters()["connect_timeout"] == "3"
    )


@pytest.mark.parametrize(
    "uri", ["", "mysql://me:zebra@db/shop", "postgresql://me:ze/bra@db/shop", "postgresql://me:zebra@db:port/shop"]
)
def test_one_that_cannot_be_read_is_refused_without_being_shown(uri: str):
    with pytest.raises(ConfigError) as caught:
        server(uri).parameters()
    assert "connection shop has no uri that can be read" in str(caught.value).replace(":", "", 1)
    assert "bra" not in str(caught.value)


def test_nothing_of_a_connection_is_in_its_text():
    assert "zebra" not in repr(server("postgresql://me:zebra@db/shop", password="zebra"))


def test_names_and_constants_cannot_leave_their_quotes():
    assert quoted('a"; drop', "b") == '"a""; drop"."b"'
    assert literal("it's") == "'it''s'"
    assert literal("\\' OR 1") == "E'\\\\'' OR 1'"


@pytest.mark.parametrize(
    "error",
    [
        StateChanged("ingest", "what é", "remedy"),
        ConfigError(Problem("source orders", "no"), Problem("source orders", "neither")),
    ],
)
def test_an_error_of_a_worker_reaches_the_driver_as_itself(error: MicrobatchError):
    text = f"[PYTHON_ERROR] Traceback\n RuntimeError: {carried(error)}\n\tat org.apache.spark"
    found = classify(RuntimeError(text), "ingest", 0)
    assert type(found) is type(error)
    assert found.args == error.args
    assert str(pickle.loads(pickle.dumps(found))) == str(error)


@pytest.mark.parametrize("text", ["nothing", "<microbatch !!>", "<microbatch bm8=>"])
def test_a_text_that_carries_no_error_is_only_a_text(text: str):
    assert uncarried(text) is None


def test_the_columns_of_a_schema_are_known_without_spark():
    ddl = "id BIGINT NOT NULL, `a, ``b` DECIMAL(10, 2) COMMENT 'x, y', tags ARRAY<STRUCT<a: INT, b: INTEGER>>, at timestamp_ltz"
    assert fields_of(ddl) == {
        "id": "bigint",
        "a, `b": "decimal(10,2)",
        "tags": "array<struct<a:int,b:int>>",
        "at": "timestamp",
    }
