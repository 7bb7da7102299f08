"""What one batch promises: every row accounted for, once, whatever happens in between."""

from __future__ import annotations

import threading

import pytest
from chispa import assert_df_equality

from microbatch import quarantine
from microbatch.errors import ConfigError, ExpectationStopped, RuleBroken, TransformBroken
from microbatch.sink import small
from microbatch.sink.tables import Table
from microbatch.testing import STEPS, Bench
from tests.orders import ORDERS_JOB, order


def test_every_row_is_in_its_table_in_quarantine_or_superseded(orders: Bench, rows):
    orders.land(
        "orders",
        order(1, "5.00", 1),
        order(1, "6.00", 2),
        order(2, "-1.00"),
        order(None),
        order(3, "2000.00"),
        "{broken",
    )
    ingest, refine = orders.run("orders")
    assert (ingest.rows_read, ingest.rows_unparsed, ingest.rows_transformed, ingest.rows_written) == (6, 1, 5, 5)
    assert (refine.rows_read, refine.rows_transformed, refine.rows_written) == (5, 5, 2)
    assert (refine.rows_quarantined, refine.rows_superseded, refine.rows_inserted) == (2, 1, 2)
    assert ingest.lawful() and refine.lawful()
    expected = rows("order_id BIGINT, cents BIGINT", (1, 600), (3, 200000))
    assert_df_equality(orders.read("silver.orders").select("order_id", "cents"), expected, ignore_row_order=True)


def test_a_letter_holds_the_input_and_every_reason_and_a_warning_stays(orders: Bench):
    orders.land("orders", order(None, "-3.00"), "{broken", order(1, "5000.00"))
    _, refine = orders.run("orders")
    letters = {letter.kind: letter for letter in orders.quarantine("orders").collect()}
    assert set(letters) == {"row", "parse"}
    assert letters["parse"].payload == "{broken"
    assert '"amount":-3.00' in letters["row"].payload
    assert {reason.column for reason in letters["row"].reasons} == {"amount", "order_id"}
    assert any("-3.00" in reason.message for reason in letters["row"].reasons)
    assert refine.rows_written == 1
    assert {(r.severity, r.success, r.unexpected) for r in refine.results} == {
        ("critical", False, 1),
        ("warning", False, 1),
    }


def test_a_few_letters_with_much_text_in_all_are_written_by_spark_and_are_the_same(orders: Bench, monkeypatch):
    """Through the driver they would not fit: a line of 25 MB is one letter."""
    orders.land("orders", order(1, "-1.00"), "{broken" + "x" * 2_000, order(2, "-2.00"), order(2, "-2.00"), "{broken")
    orders.crash("orders", before="target", flows=["ingest"])
    orders.run("orders", flows=["ingest"])
    orders.crash("orders", before="target")
    before = {letter.id: letter.payload for letter in orders.quarantine("orders").collect()}
    assert len(before) == 5
    written = []
    by_spark = quarantine._write_by_spark
    monkeypatch.setattr(quarantine, "_write_by_spark", lambda *given: (written.append(1), by_spark(*given)))
    monkeypatch.setattr(quarantine, "LARGE", 20)
    orders.run("orders")
    assert written == [1]
    assert {letter.id: letter.payload for letter in orders.quarantine("orders").collect()} == before


def test_two_equal_bad_rows_are_two_letters(orders: Bench):
    orders.land("orders", order(1, "-1.00"), order(1, "-1.00"), "nonsense", "nonsense")
    orders.run("orders")
    letters = orders.quarantine("orders").collect()
    assert len(letters) == 4
    assert len({letter.id for letter in letters}) == 4


def test_a_second_run_finds_nothing_to_do_and_changes_no_table(orders: Bench):
    orders.land("orders", order(1), order(2, "-1.00"))
    orders.run("orders")
    before = orders.versions()
    report = orders.report("orders")
    assert [flow.state for flow in report.flows] == ["idle", "idle"]
    assert orders.versions() == before


def test_the_newest_version_of_a_key_wins_in_whatever_order_versions_come(orders: Bench, rows):
    orders.land("orders", order(1, "2.00", 2))
    orders.run("orders")
    orders.land("orders", order(1, "1.00", 1), order(2, "1.00", 1))
    orders.run("orders")
    orders.land("orders", order(1, "3.00", 3))
    _, refine = orders.run("orders")
    assert (refine.rows_updated, refine.rows_written) == (1, 1)
    expected = rows("order_id BIGINT, cents BIGINT", (1, 300), (2, 100))
    assert_df_equality(orders.read("silver.orders").select("order_id", "cents"), expected, ignore_row_order=True)


@pytest.mark.slow
@pytest.mark.parametrize("before", STEPS[2:])
def test_a_crash_anywhere_neither_loses_nor_repeats_a_row(orders: Bench, before):
    records = [order(1, "5.00"), order(1, "6.00", 1), order(2, "-1.00"), order(3), "{broken"]
    orders.land("orders", *records)
    orders.crash("orders", before=before, flows=["ingest"])
    orders.run("orders", flows=["ingest"])
    orders.crash("orders", before=before, flows=["refine"])
    orders.run("orders")
    assert sorted(r.order_id for r in orders.read("bronze.orders").collect()) == [1, 1, 2, 3]
    assert sorted((r.order_id, r.cents) for r in orders.read("silver.orders").collect()) == [(1, 600), (3, 100)]
    assert sorted(letter.kind for letter in orders.quarantine("orders").collect()) == ["parse", "row"]
    assert [(b["flow"], b["batch_id"], b["rows_written"]) for b in orders.ledger("orders")] == [
        ("ingest", 0, 4),
        ("refine", 0, 2),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("most_rows", [0, 1000], ids=["by Spark", "by delta-rs"])
@pytest.mark.parametrize("before", ["target", "ledger"])
def test_a_crash_around_an_append_to_a_table_that_is_there_loses_and_repeats_nothing(
    orders: Bench, monkeypatch: pytest.MonkeyPatch, before, most_rows
):
    monkeypatch.setattr(small, "MOST_ROWS", most_rows)
    orders.land("orders", order(1))
    orders.run("orders", flows=["ingest"])
    orders.land("orders", order(2), order(3, "-1.00"), "{broken")
    orders.crash("orders", before=before, flows=["ingest"])
    orders.run("orders", flows=["ingest"])
    written_by = str(next(Table(orders.storage["warehouse"], "bronze.orders").commits(1))["engineInfo"])
    assert written_by.startswith("delta-rs" if most_rows else "Apache-Spark")
    assert sorted(row.order_id for row in orders.read("bronze.orders").collect()) == [1, 2, 3]
    assert [(b["batch_id"], b["rows_written"], b["rows_inserted"]) for b in orders.ledger("orders")] == [
        (0, 1, 1),
        (1, 2, 2),
    ]


@pytest.mark.slow
def test_letters_of_an_attempt_that_never_committed_are_replaced_by_the_next(orders: Bench):
    orders.land("orders", order(1, "-1.00"), order(2, "1.00"))
    orders.run("orders", flows=["ingest"])
    orders.crash("orders", before="target", flows=["refine"])
    assert orders.quarantine("orders").count() == 1
    orders.write("transforms/orders.py", TOLERANT)
    orders.run("orders")
    assert orders.quarantine("orders").count() == 0
    assert orders.read("silver.orders").count() == 2


def test_a_table_level_rule_at_critical_stops_the_flow_before_anything_is_written(orders: Bench):
    orders.write("expectations/orders/orders.yml", AT_LEAST_TWO)
    orders.land("orders", order(1))
    with pytest.raises(ExpectationStopped, match="table_row_count") as stopped:
        orders.run("orders")
    assert stopped.value.exit_code == 3
    assert "silver.orders" not in orders.versions()
    orders.land("orders", order(2))
    orders.write("expectations/orders/orders.yml", AT_LEAST_TWO.replace("2", "1"))
    assert sum(outcome.rows_written for outcome in orders.run("orders") if outcome.flow == "refine") == 2


def test_mostly_on_a_critical_rule_stops_a_batch_in_which_too_few_pass(orders: Bench):
    orders.write("expectations/orders/orders.yml", MOSTLY)
    orders.land("orders", order(1, "-1.00"), order(2))
    with pytest.raises(ExpectationStopped, match="amount"):
        orders.run("orders")
    assert orders.quarantine("orders").count() == 0


def test_a_transform_that_multiplies_rows_through_a_snapshot_is_stopped_and_the_snapshot_named(orders: Bench):
    orders.write("jobs/orders.py", WITH_SNAPSHOT)
    orders.write("transforms/orders.py", JOINING)
    orders.write("conf/base/orders.yml", SNAPSHOT_CONF)
    orders.land("orders", order(1), order(2))
    orders.land("shops", {"shop": 1, "name": "a"}, {"shop": 1, "name": "b"})
    with pytest.raises(TransformBroken, match="snapshot shops .*more than one row") as stopped:
        orders.run("orders")
    assert stopped.value.exit_code == 1
    assert "silver.orders" not in orders.versions()


def test_what_a_transform_raises_over_a_row_names_the_transform_and_is_not_retried(orders: Bench):
    orders.write("transforms/orders.py", RAISING)
    orders.land("orders", order(1, "0.00"))
    with pytest.raises(TransformBroken, match="DIVIDE_BY_ZERO.*transforms.orders.refine"):
        orders.run("orders")


DIVIDING = """
name: orders
expectations:
  - type: unexpected_rows_expectation
    kwargs: {unexpected_rows_query: "SELECT * FROM {batch} WHERE 10 / amount > 5"}
    severity: warning
"""


@pytest.mark.parametrize("transform", [True, False])
def test_what_a_rule_raises_over_a_row_names_the_rules_and_not_the_transform(orders: Bench, transform: bool):
    orders.write("expectations/orders/orders.yml", DIVIDING)
    if not transform:
        orders.write("jobs/orders.py", ORDERS_JOB.replace("transform=orders.refine, ", ""))
    orders.land("orders", order(1, "2.00"), order(2, "0.00"))
    with pytest.raises(RuleBroken, match=r"DIVIDE_BY_ZERO.*\(in expectations/orders/orders\); .*still pending"):
        orders.run("orders")
    orders.write("expectations/orders/orders.yml", DIVIDING.replace("10 / amount", "try_divide(10, amount)"))
    assert [outcome.rows_read for outcome in orders.run("orders")] == [2]


TOLERANT = '''
from pyspark.sql import functions as F


def refine(orders):
    """Add the cents, and turn a negative amount round."""
    orders = orders.withColumn("amount", F.abs("amount").cast("decimal(10,2)"))
    return orders.withColumn("cents", (F.col("amount") * 100).cast("bigint"))
'''
RAISING = '''
from pyspark.sql import functions as F


def refine(orders):
    """Not total."""
    return orders.withColumn("cents", (F.lit(1) / F.col("amount")).cast("bigint"))
'''
AT_LEAST_TWO = """
name: orders
expectations:
  - type: expect_table_row_count_to_be_between
    kwargs: {min_value: 2}
    severity: critical
"""
MOSTLY = """
name: orders
expectations:
  - type: expect_column_values_to_be_between
    kwargs: {column: amount, min_value: 0, mostly: 0.9}
    severity: critical
"""
WITH_SNAPSHOT = '''
"""Orders with their shop."""

from microbatch import Append, Flow, Job, Source, Upsert
from transforms import orders

JOB = Job(
    Flow("ingest", reads=Source("orders", schema="order_id BIGINT, amount DECIMAL(10,2), updated_at TIMESTAMP"),
         writes=Append("bronze.orders")),
    Flow("shops", reads=Source("shops", schema="shop BIGINT, name STRING"), writes=Append("bronze.shops")),
    Flow("refine", reads="bronze.orders", snapshots={"shops": "bronze.shops"}, transform=orders.refine, expects="orders",
         writes=Upsert("silver.orders", keys=["order_id"], newest_by="updated_at")),
)
'''
JOINING = '''
from pyspark.sql import functions as F


def refine(orders, shops):
    """Add the name of the shop."""
    return orders.withColumn("shop", F.lit(1).cast("bigint")).join(shops, "shop", "left")
'''
SNAPSHOT_CONF = """
sources:
  orders: {kind: files, format: json, path: "${landing}/orders"}
  shops: {kind: files, format: json, path: "${landing}/shops"}
retry: {attempts: 0}
"""


@pytest.mark.slow
def test_a_masked_column_is_hidden_in_every_letter_and_every_reason_of_the_job(orders: Bench):
    conf = (orders.root / "conf/base/orders.yml").read_text()
    orders.write("conf/base/orders.yml", conf.replace("format: json", "format: json, mask: [AMOUNT]"))
    orders.land("orders", order(1, "-77.25"), '{"order_id": "x", "amount": "88.25"}', order(2))
    orders.run("orders")
    letters = orders.quarantine("orders").collect()
    assert sorted(letter.kind for letter in letters) == ["parse", "row"]
    assert not [letter for letter in letters if "77.25" in str(letter) or "88.25" in str(letter)]
    (row,) = [letter for letter in letters if letter.kind == "row"]
    assert '"amount":"***"' in row.payload and '"order_id":1' in row.payload
    stop = "{type: expect_column_max_to_be_between, kwargs: {column: amount, max_value: 50}, severity: critical}"
    orders.write("expectations/orders/orders.yml", f"name: orders\nexpectations:\n  - {stop}\n")
    orders.land("orders", order(3, "66.50"))
    with pytest.raises(ExpectationStopped, match=r"observed \*\*\*") as stopped:
        orders.run("orders")
    assert "66.5" not in str(stopped.value)
    orders.write("conf/base/orders.yml", conf.replace("format: json", "format: json, mask: [amuont]"))
    what = "conf/base/orders.yml: sources.orders.mask names amuont, which is no column of the job; did you mean amount?"
    with pytest.raises(ConfigError, match=what):
        orders.run("orders")


@pytest.mark.slow
def test_a_run_leaves_no_thread_behind_that_waits_for_a_query_that_has_ended(orders: Bench):
    def waiting() -> int:
        return sum("ClientServerConnection" in repr(getattr(each, "_target", "")) for each in threading.enumerate())

    orders.land("orders", order(1))
    orders.run("orders")
    before = waiting()
    for number in range(2, 6):
        orders.land("orders", order(number))
        orders.run("orders")
    # One more comes once and stays, as when Java first collects what a query handed it. Were a query's own not closed, there
    # would be two for each run, one a flow: eight.
    assert waiting() <= before + 1
