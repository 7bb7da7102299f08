"""A batch that fails: what is retried, what its letter says, and how somebody gets past it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microbatch.errors import BatchFailed, ConfigError, StateChanged, TransformBroken, TransientError
from microbatch.runner import run
from microbatch.sink import ops
from microbatch.testing import Bench
from tests.orders import ORDERS_CONF, ORDERS_TRANSFORM, order

pytestmark = pytest.mark.slow  # whole runs of the engine, or processes of their own

DIVIDES = '''
from pyspark.sql import functions as F


def refine(orders):
    """Not total."""
    return orders.withColumn("cents", (F.lit(1) / F.col("amount")).cast("bigint"))
'''


def test_a_batch_that_fails_leaves_one_letter_which_the_run_that_gets_past_it_closes(orders: Bench):
    orders.land("orders", order(1, "0.00"), order(2, "2.00"))
    orders.write("transforms/orders.py", DIVIDES)
    for _ in range(2):
        with pytest.raises(TransformBroken, match="DIVIDE_BY_ZERO"):
            orders.run("orders")
    (letter,) = orders.quarantine("orders").collect()
    payload = json.loads(letter.payload)
    assert (letter.kind, letter.status, letter.attempts) == ("batch", "open", 2)
    assert "DIVIDE_BY_ZERO" in payload["error"] and "reservoirVersion" in payload["source_end"]
    orders.write("transforms/orders.py", ORDERS_TRANSFORM)
    orders.run("orders")
    status = {letter.kind: letter.status for letter in orders.quarantine("orders").collect()}
    assert status == {"batch": "replayed", "row": "open"}
    assert orders.read("silver.orders").count() == 1


def test_accept_batch_sends_the_rows_themselves_to_quarantine_and_goes_on(orders: Bench):
    orders.land("orders", order(1, "0.00"), order(2, "2.00"))
    orders.write("transforms/orders.py", DIVIDES)
    with pytest.raises(TransformBroken):
        orders.run("orders")
    report = run(orders.suite(), ["orders"], flows=["refine"], accept="batch")
    assert report.exit_code == 0
    (outcome,) = report.outcomes
    assert (outcome.rows_read, outcome.rows_quarantined, outcome.rows_written) == (2, 2, 0)
    letters = orders.quarantine("orders").where("kind = 'row'").collect()
    assert sorted(json.loads(letter.payload)["order_id"] for letter in letters) == [1, 2]
    orders.land("orders", order(3, "4.00"))
    orders.write("transforms/orders.py", ORDERS_TRANSFORM)
    orders.run("orders")
    assert [r.order_id for r in orders.read("silver.orders").collect()] == [3]


def test_accept_batch_takes_a_file_that_cannot_be_read_as_a_letter_of_its_own(orders: Bench):
    orders.write("conf/base/orders.yml", ORDERS_CONF.replace("json", "parquet"))
    landing = Path(orders.storage["landing"]) / "orders"
    landing.mkdir(parents=True)
    (landing / "broken.parquet").write_bytes(b"no parquet at all")
    pq.write_table(pa.table({"order_id": [1]}), landing / "good.parquet")
    orders.crash("orders", before="target")
    report = run(orders.suite(), ["orders"], flows=["ingest"], accept="batch")
    assert [(o.rows_read, o.rows_quarantined) for o in report.outcomes] == [(1, 1)]
    assert sorted(letter.kind for letter in orders.quarantine("orders").collect()) == ["file", "row"]
    assert orders.run("orders") == []


def test_a_transient_error_is_tried_again_with_back_off_and_then_raised(orders: Bench):
    orders.land("orders", order(1))
    conf = (orders.root / "conf/base/orders.yml").read_text()
    orders.write("conf/base/orders.yml", conf.replace("{attempts: 0}", "{attempts: 2, first_wait_s: 0.01}"))
    tries = []

    def reached(step: str, batch_id: int) -> None:
        if step == "letters" and len(tries) < 3:
            tries.append(batch_id)
            raise TransientError("the network was away")

    report = run(orders.suite(), ["orders"], flows=["ingest"], reached=reached)
    assert report.exit_code == 5
    assert tries == [0, 0, 0]
    (letter,) = orders.quarantine("orders").collect()
    assert (letter.kind, letter.status) == ("batch", "open")
    assert run(orders.suite(), ["orders"], flows=["ingest"], reached=reached).exit_code == 0
    assert orders.read("bronze.orders").count() == 1
    assert [letter.status for letter in orders.quarantine("orders").collect()] == ["replayed"]


def test_an_error_the_engine_does_not_know_is_not_retried(orders: Bench):
    orders.land("orders", order(1))
    tries = []

    def reached(step: str, batch_id: int) -> None:
        tries.append(batch_id)
        raise ValueError("something else")

    report = run(orders.suite(), ["orders"], flows=["ingest"], reached=reached)
    assert isinstance(report.errors[0], BatchFailed)
    assert report.exit_code == 1 and tries == [0]


def test_accept_checkpoint_starts_anew_from_the_source_and_keeps_the_old_one_aside(orders: Bench):
    orders.land("orders", order(1), order(2))
    orders.run("orders")
    checkpoint = orders.checkpoint("orders", "refine")
    checkpoint.rename(checkpoint.with_name("lost"))
    with pytest.raises(StateChanged, match="lost checkpoint.*--accept checkpoint"):
        orders.run("orders", flows=["refine"])
    report = run(orders.suite(), ["orders"], flows=["refine"], accept="checkpoint")
    assert report.exit_code == 0
    assert orders.read("silver.orders").count() == 2
    assert orders.report("orders").exit_code == 0


def test_a_checkpoint_given_up_is_in_the_runs_though_the_job_then_turns_out_to_be_wrong(orders: Bench):
    orders.land("orders", order(1))
    orders.run("orders")
    orders.write("transforms/orders.py", 'def refine(orders):\n    return orders.select("nope")\n')
    assert run(orders.suite(), ["orders"], flows=["refine"], accept="checkpoint").exit_code == 2
    assert "checkpoint" in [each["accepted"] for each in ops.rows(orders.storage["warehouse"], "runs")]


def test_accept_files_goes_on_without_a_file_that_vanished_and_takes_a_changed_one_as_read(orders: Bench):
    first = orders.land("orders", order(1))
    orders.run("orders")
    first.write_text(first.read_text() * 2)
    with pytest.raises(StateChanged, match="changed after it was read"):
        orders.run("orders")
    assert run(orders.suite(), ["orders"], flows=["ingest"], accept="files").exit_code == 0
    second = orders.land("orders", order(2))
    orders.land("orders", order(3))
    orders.crash("orders", before="target")
    second.unlink()
    with pytest.raises(StateChanged, match="vanished"):
        orders.run("orders")
    assert run(orders.suite(), ["orders"], flows=["ingest"], accept="files").exit_code == 0
    assert sorted(r.order_id for r in orders.read("bronze.orders").collect()) == [1, 3]


def test_accept_without_one_flow_is_refused(orders: Bench):
    with pytest.raises(ConfigError, match="one --flow"):
        run(orders.suite(), ["orders"], accept="batch")


def test_a_batch_that_is_in_the_ledger_and_wrote_nothing_is_not_judged_again_though_it_would_be_otherwise(
    orders: Bench,
):
    """Its letters are open, for a replay; rows that were written now would be in no ledger row."""
    orders.land("orders", order(1) | {"updated_at": "01.02.2024 03:04"})
    orders.crash("orders", before="commit", flows=["ingest"])
    mended = ORDERS_CONF.replace("format: json,", "format: json, options: {timestampFormat: dd.MM.yyyy HH:mm},")
    orders.write("conf/base/orders.yml", mended)
    orders.land("orders", order(2) | {"updated_at": "01.02.2024 03:04"})
    outcomes = orders.run("orders", flows=["ingest"])
    assert [(each.rows_read, each.rows_unparsed, each.rows_written) for each in outcomes] == [(1, 1, 0), (1, 0, 1)]
    assert [row.order_id for row in orders.read("bronze.orders").collect()] == [2]
    assert [letter.status for letter in orders.quarantine("orders").collect()] == ["open"]
    assert len(orders.ledger("orders")) == 2
