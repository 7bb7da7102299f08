"""Replay and discard: the recorded input through today's transform and rules, once."""

from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from microbatch.commands import audit, replay
from microbatch.commands.quarantine import Letters
from microbatch.errors import StateChanged
from microbatch.sink import ops
from microbatch.testing import Bench
from tests.orders import ORDERS_CONF, ORDERS_JOB, ORDERS_RULES, ORDERS_TRANSFORM, order

pytestmark = pytest.mark.slow


def letters(bench: Bench, **chosen: object) -> Letters:
    suite = bench.suite()
    return Letters(suite, suite.job("orders"), **chosen)  # type: ignore[arg-type]


def statuses(bench: Bench) -> dict[str, int]:
    counts = bench.quarantine("orders").groupBy("status").count().collect()
    return {row["status"]: row["count"] for row in counts}


def audited(bench: Bench) -> int:
    suite = bench.suite()
    return audit.execute(suite, suite.job("orders"))


def judged_at_once(bench: Bench) -> None:
    """The rules hold for what is appended, too."""
    bench.write("jobs/orders.py", ORDERS_JOB.replace("writes=Append", 'expects="orders", writes=Append'))


class Killed(Exception):
    """A staged crash."""


def killed_at(bench: Bench, step: str, **chosen: object) -> None:
    """A replay that ends as soon as this step of a batch is done."""

    def reached(done: str, batch_id: int) -> None:
        if done == step:
            raise Killed

    with pytest.raises(Killed):
        replay.replay(letters(bench, **chosen), reached)


def lowered(bench: Bench) -> None:
    """The mended rule: amounts down to -5.00 are fine."""
    bench.write("expectations/orders/orders.yml", ORDERS_RULES.replace("min_value: 0,", "min_value: -5,"))


def test_a_row_that_a_mended_rule_lets_pass_is_in_the_table_once_however_often_it_is_replayed(orders: Bench):
    orders.land("orders", order(1, "-1.00"), order(2, "-2.00"), order(3), "{broken")
    orders.run("orders")
    replay.replay(letters(orders))
    assert statuses(orders) == {"open": 3}
    assert {row.attempts for row in orders.quarantine("orders").collect()} == {2}
    orders.write("expectations/orders/orders.yml", ORDERS_RULES.replace("min_value: 0,", "min_value: -1.5,"))
    for _ in range(2):
        replay.replay(letters(orders))
        assert sorted(r.order_id for r in orders.read("silver.orders").collect()) == [1, 3]
        assert statuses(orders) == {"open": 2, "replayed": 1}
    assert audited(orders) == 0
    replay.discard(letters(orders, where="payload LIKE '%broken%'"))
    assert statuses(orders) == {"open": 1, "replayed": 1, "discarded": 1}


def test_a_line_that_fits_a_mended_schema_is_appended_once_even_if_the_replay_was_killed_before_it_marked_the_letter(
    orders: Bench,
):
    orders.land("orders", '{"order_id": 1, "amount": "1.00", "updated_at": "01.02.2024"}')
    orders.run("orders")
    assert statuses(orders) == {"open": 1}
    conf = ORDERS_CONF.replace('"${landing}/orders"', '"${landing}/orders", options: {timestampFormat: dd.MM.yyyy}')
    orders.write("conf/base/orders.yml", conf)
    replay.replay(letters(orders))
    assert statuses(orders) == {"replayed": 1}
    table = DeltaTable(f"{orders.storage['warehouse']}/ops/quarantine")
    table.update(updates={"status": "'open'"})  # as a kill between the target's commit and the letter's leaves it
    replay.replay(letters(orders))
    assert statuses(orders) == {"replayed": 1}
    assert orders.read("bronze.orders").count() == 1
    orders.run("orders")
    assert orders.read("silver.orders").count() == 1
    assert audited(orders) == 0


@pytest.mark.parametrize("step", ["target", "ledger"])
def test_a_replay_that_was_killed_behind_its_commit_is_in_the_ledger_and_once_in_the_table(orders: Bench, step: str):
    judged_at_once(orders)
    orders.land("orders", order(1, "-1.00"), order(2))
    orders.run("orders")
    lowered(orders)
    killed_at(orders, step)
    replay.replay(letters(orders))
    assert statuses(orders) == {"replayed": 1}
    assert sorted(row.order_id for row in orders.read("bronze.orders").collect()) == [1, 2]
    assert audited(orders) == 0
    assert sum(batch["query_id"].startswith("replay:") for batch in orders.ledger("orders")) == 1


@pytest.fixture
def mended(orders: Bench) -> Bench:
    """A file that could not be read and was mended in place: of two orders, one of which breaks a rule."""
    judged_at_once(orders)
    orders.write("conf/base/orders.yml", ORDERS_CONF.replace("json", "parquet"))
    file = Path(orders.storage["landing"]) / "orders" / "broken.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no parquet at all")
    orders.run("orders")
    parquet(file, (7, "1.00"), (8, "-2.00"))
    return orders


@pytest.mark.parametrize("step", ["letters", "target", "ledger"])
def test_a_replay_of_a_file_that_was_killed_leaves_one_letter_for_each_of_its_bad_rows(mended: Bench, step: str):
    killed_at(mended, step)
    replay.replay(letters(mended, where="kind = 'file'"))
    assert kinds(mended) == [("file", "replayed"), ("row", "open")]
    assert audited(mended) == 0
    lowered(mended)
    replay.replay(letters(mended))
    assert kinds(mended) == [("file", "replayed"), ("row", "replayed")]
    assert sorted(row.order_id for row in mended.read("bronze.orders").collect()) == [7, 8]
    mended.run("orders")
    assert audited(mended) == 0


TOTAL = """

def total(orders):
    \"\"\"The amount of each minute.\"\"\"
    return orders.groupBy("updated_at").agg(F.sum("amount").alias("amount"))
"""


@pytest.fixture
def totals(orders: Bench) -> Bench:
    """A flow that recomputes the total of each minute, with one that breaks a rule and one that does not."""
    flow = """
    Flow("total", reads="bronze.orders", transform=orders.total, recompute_by=["updated_at"], expects="orders",
         writes=Replace("gold.totals", keys=["updated_at"])),
)
"""
    job = ORDERS_JOB.replace("Job, Source", "Job, Replace, Source")
    orders.write("jobs/orders.py", job[: job.index('    Flow("refine"')] + flow.lstrip("\n"))
    orders.write("transforms/orders.py", ORDERS_TRANSFORM + TOTAL)
    orders.land("orders", order(1, "-1.00"), order(2, "2.00", minute=1))
    orders.run("orders")
    return orders


@pytest.mark.parametrize("step", ["letters", "target", "ledger"])
def test_a_replay_of_groups_that_was_killed_leaves_one_letter_for_each_that_is_still_bad(totals: Bench, step: str):
    killed_at(totals, step)
    replay.replay(letters(totals, where="query_id NOT LIKE 'replay:%'"))
    assert kinds(totals) == [("row", "open"), ("row", "replayed")]
    assert audited(totals) == 0
    lowered(totals)
    replay.replay(letters(totals))
    assert kinds(totals) == [("row", "replayed"), ("row", "replayed")]
    assert totals.read("gold.totals").count() == 2
    assert audited(totals) == 0


def test_a_file_of_which_nothing_parses_has_its_letters_once_even_if_its_replay_was_killed_before_it_was_marked(
    orders: Bench,
):
    """Nothing of it is committed to the table: the ledger alone knows of it."""
    broken = orders.land("orders", order(1), name="1.json.gz")
    orders.run("orders")
    broken.write_bytes(gzip.compress(b"{no order\n"))
    killed_at(orders, "ledger")
    replay.replay(letters(orders, where="kind = 'file'"))
    assert kinds(orders) == [("file", "replayed"), ("parse", "open")]
    assert audited(orders) == 0


def kinds(bench: Bench) -> list[tuple[str, str]]:
    return sorted((letter.kind, letter.status) for letter in bench.quarantine("orders").collect())


def parquet(file: Path, *orders: tuple[int, str]) -> None:
    """Write a file of orders, by id and amount."""
    schema = pa.schema(
        {"order_id": pa.int64(), "amount": pa.decimal128(10, 2), "updated_at": pa.timestamp("us", tz="UTC")}
    )
    rows = [{"order_id": order_id, "amount": Decimal(amount)} for order_id, amount in orders]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)


def test_a_file_that_was_mended_in_place_is_read_whole_and_does_not_stop_the_next_run(orders: Bench):
    orders.write("conf/base/orders.yml", ORDERS_CONF.replace("json", "parquet"))
    broken = Path(orders.storage["landing"]) / "orders" / "broken.parquet"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no parquet at all")
    orders.run("orders")
    assert [row.kind for row in orders.quarantine("orders").collect()] == ["file"]
    replay.replay(letters(orders))
    assert statuses(orders) == {"open": 1}
    parquet(broken, (7, "1.00"))
    replay.replay(letters(orders))
    assert statuses(orders) == {"replayed": 1}
    orders.run("orders")
    assert [r.order_id for r in orders.read("silver.orders").collect()] == [7]
    assert audited(orders) == 0


OF_BATCHES = """
name: orders
expectations:
  - type: expect_column_values_to_be_between
    kwargs: {column: amount, min_value: -2, mostly: 0.95}
    severity: critical
  - type: expect_table_row_count_to_be_between
    kwargs: {min_value: 1000}
    severity: critical
"""
BETWEEN = "expect_column_values_to_be_between"
TOO_FEW = "expect_table_row_count_to_be_between (orders/2): row count of the table must be at least 1000, observed 2"


def test_rules_over_a_whole_batch_do_not_hold_letters_of_rows_which_are_none(orders: Bench):
    orders.land("orders", order(1, "-1.00"), order(2), order(3, "-3.00"))
    orders.run("orders")
    orders.write("expectations/orders/orders.yml", OF_BATCHES)
    replay.replay(letters(orders))
    assert sorted(row.order_id for row in orders.read("silver.orders").collect()) == [1, 2]
    found = orders.quarantine("orders").collect()
    assert sorted((letter.status, letter.attempts) for letter in found) == [("open", 2), ("replayed", 1)]
    results = ops.rows(orders.storage["warehouse"], "expectations", [("query_id", "like", "replay:%")])
    found = [each for each in results if each["expectation_id"].startswith("orders/")]
    assert [(each["expectation"], each["evaluated"], each["unexpected"]) for each in found] == [(BETWEEN, 2, 1)]
    assert audited(orders) == 0


def test_a_rule_over_a_whole_batch_holds_a_mended_file_whose_letter_then_says_so(mended: Bench):
    mended.write("expectations/orders/orders.yml", OF_BATCHES)
    replay.replay(letters(mended))
    (letter,) = mended.quarantine("orders").collect()
    assert (letter.kind, letter.status, letter.attempts) == ("file", "open", 2)
    assert [reason.message for reason in letter.reasons] == [TOO_FEW]
    assert "bronze.orders" not in mended.versions()
    mended.write("expectations/orders/orders.yml", OF_BATCHES.replace("1000", "2"))
    replay.replay(letters(mended))
    assert sorted(row.order_id for row in mended.read("bronze.orders").collect()) == [7, 8]
    assert audited(mended) == 0


def test_a_rule_over_a_whole_batch_holds_groups_whose_letters_then_say_so(totals: Bench):
    totals.write("expectations/orders/orders.yml", OF_BATCHES)
    replay.replay(letters(totals))
    (letter,) = totals.quarantine("orders").collect()
    assert (letter.status, letter.attempts) == ("open", 2)
    assert [reason.message for reason in letter.reasons] == [TOO_FEW.replace("observed 2", "observed 1")]
    totals.write("expectations/orders/orders.yml", OF_BATCHES.replace("1000", "1"))
    replay.replay(letters(totals))
    assert totals.read("gold.totals").count() == 2
    assert audited(totals) == 0


def test_letters_of_an_unfinished_batch_are_left_to_its_run_which_would_append_their_rows_a_second_time(
    orders: Bench, capsys: pytest.CaptureFixture[str]
):
    judged_at_once(orders)
    orders.land("orders", order(1, "-1.00"), order(2))
    orders.run("orders")
    orders.land("orders", order(3, "-3.00"), order(4))
    orders.crash("orders", before="target", flows=["ingest"])
    lowered(orders)
    before = orders.versions()
    with pytest.raises(StateChanged, match="ingest: batch 1 is unfinished.*run `microbatch run orders` first"):
        replay.replay(letters(orders, batch=1))
    assert orders.versions() == before
    replay.replay(letters(orders))
    assert "1 letters of ingest are not replayed: batch 1 is unfinished" in capsys.readouterr().err
    assert statuses(orders) == {"replayed": 1, "open": 1}
    assert sorted(row.order_id for row in orders.read("bronze.orders").collect()) == [1, 2]
    orders.run("orders")
    assert sorted(row.order_id for row in orders.read("bronze.orders").collect()) == [1, 2, 3, 4]
    assert statuses(orders) == {"replayed": 1}
    assert audited(orders) == 0


def test_letters_of_a_batch_that_was_killed_behind_its_commit_are_replayed(orders: Bench):
    judged_at_once(orders)
    orders.land("orders", order(1, "-1.00"), order(2))
    orders.crash("orders", before="ledger", flows=["ingest"])
    lowered(orders)
    for _ in range(2):
        replay.replay(letters(orders))
        orders.run("orders")
        assert sorted(row.order_id for row in orders.read("bronze.orders").collect()) == [1, 2]
        assert statuses(orders) == {"replayed": 1}
        assert audited(orders) == 0


def test_letters_of_a_batch_that_wrote_nothing_and_is_in_the_ledger_are_replayed_for_no_run_judges_it_again(
    orders: Bench,
):
    orders.land("orders", "{broken")
    orders.crash("orders", before="commit", flows=["ingest"])
    replay.replay(letters(orders))
    assert [letter.attempts for letter in orders.quarantine("orders").collect()] == [2]
