"""`plan`, `preview` and `docs`: over a real suite, before and after a run; none of them leaves anything behind."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from microbatch.commands import docs, plan, preview
from microbatch.errors import ConfigError, MicrobatchError, SourceUnavailable
from tests.orders import ORDERS_CONF, ORDERS_JOB, ORDERS_RULES, ORDERS_TRANSFORM, order

pytestmark = pytest.mark.slow  # whole runs of the engine, or processes of their own

SCHEDULE = 'schedule: {cron: "0 2 * * *", timezone: Europe/Berlin, sla_m: 30, retries: 3, retry_delay_m: 5}\n'
HEADINGS = [
    "Sources",
    "Transformations",
    "Validation",
    "Destination",
    "Orchestration",
    "Error_handling",
    "Monitoring",
    "Lineage",
]


def said(capsys, bench, command, *arguments) -> str:
    """What a command prints; it must leave the suite's folder and storage as they were."""
    suite = bench.suite()
    places = [Path(bench.root), *(Path(folder) for folder in bench.storage.values())]

    def there() -> set[Path]:
        return {path for place in places for path in place.rglob("*") if "__pycache__" not in path.parts}

    before = there()
    job = suite.job("orders")
    assert command.execute(suite, job, *[job.flow(a) if isinstance(a, str) else a for a in arguments]) == 0
    assert there() == before
    return capsys.readouterr().out


def test_plan_shows_order_schemas_rules_and_what_is_pending_before_anything_ran(orders, capsys):
    orders.land("orders", order(1))
    orders.land("orders", order(2))
    out = said(capsys, orders, plan)
    assert out.index("1. ingest") < out.index("2. refine")
    assert "pending    2 files" in out
    assert "the table is not there yet" in out
    assert "out        order_id BIGINT, amount DECIMAL(10,2), updated_at TIMESTAMP, cents BIGINT" in out
    assert "upsert by order_id; the newest updated_at wins" in out
    assert "amount must be greater than 0" in out
    assert "order_id must not be null" in out


def test_plan_notes_a_source_that_is_away_and_goes_on(orders, capsys):
    out = said(capsys, orders, plan)
    assert "notes" in out
    assert "source orders is not available" in out


def test_plan_after_a_run_has_nothing_pending_and_notes_a_lost_checkpoint(orders, capsys):
    orders.land("orders", order(1))
    orders.run("orders")
    assert said(capsys, orders, plan).count("pending    0 ") == 2
    orders.checkpoint("orders", "refine").rename(orders.checkpoint("orders", "elsewhere"))
    assert "refine: a run would stop: flow refine: lost checkpoint" in said(capsys, orders, plan)


def test_plan_tells_every_mistake_at_once(orders):
    orders.write("transforms/orders.py", ORDERS_TRANSFORM.replace("return orders.", "return orders.distinct()."))
    orders.write("expectations/orders/orders.yml", ORDERS_RULES.replace("column: amount, max", "column: amont, max"))
    orders.write(
        "jobs/other.py",
        '"""Other."""\nfrom microbatch import Append, Flow, Job\n'
        'JOB = Job(Flow("copy", reads="silver.orders", writes=Append("gold.orders", cluster_by="nothing")))\n',
    )
    suite = orders.suite()
    with pytest.raises(ConfigError, match="merges rows") as caught:
        plan.execute(suite, suite.job("orders"))
    assert all("orders" in str(problem) for problem in caught.value.problems)
    with pytest.raises(ConfigError, match="plan that job first"):
        plan.execute(suite, suite.job("other"))


def test_preview_shows_rows_that_come_out_and_the_reasons_of_those_that_leave(orders, capsys):
    orders.land("orders", order(1, "2.50"), order(2, "5000"), order(3, "-1"), "{oops", order(4))
    ingest = said(capsys, orders, preview, "ingest")
    assert "5 rows looked at (1 file of 1 pending): 4 would come out, 1 would leave" in ingest
    assert "not a JSON object" in ingest
    assert "{oops" in ingest
    orders.run("orders", flows=["ingest"])
    refine = said(capsys, orders, preview, "refine")
    assert "4 rows looked at" in refine
    assert "3 would come out, 1 would leave" in refine
    assert "critical: amount must be greater than 0, found -1.00" in refine
    assert "amount must be at most 1000, found 5000.00" in refine
    assert "250" in refine
    assert "2024-01-01 00:00:00" in refine


def test_preview_shows_as_many_rows_as_it_is_told(orders, capsys):
    orders.land("orders", *[order(100 + number) for number in range(5)])
    out = said(capsys, orders, preview, "ingest", 2)
    assert [str(100 + number) in out for number in range(5)] == [True, True, False, False, False]


def test_preview_takes_what_is_pending_first_and_what_is_there_where_nothing_is(orders, capsys):
    orders.land("orders", order(111))
    orders.run("orders")
    assert "nothing is pending" in said(capsys, orders, preview, "ingest")
    assert "nothing is pending" in said(capsys, orders, preview, "refine")
    orders.land("orders", order(222))
    ingest = said(capsys, orders, preview, "ingest")
    assert ("222" in ingest, "111" in ingest) == (True, False)
    orders.run("orders", flows=["ingest"])
    refine = said(capsys, orders, preview, "refine")
    assert "1 version pending" in refine
    assert ("222" in refine, "111" in refine) == (True, False)


def test_preview_hides_masked_columns(orders, capsys):
    orders.write("conf/base/orders.yml", ORDERS_CONF.replace('/orders"}', '/orders", mask: [amount]}'))
    orders.land("orders", order(1, "77.77"), {**order(2), "amount": "88.88x"})
    out = said(capsys, orders, preview, "ingest")
    assert "***" in out
    assert "77.77" not in out
    assert "88.88" not in out


def masked(orders, columns: str = "amount", more: str = "") -> None:
    orders.write("conf/base/orders.yml", ORDERS_CONF.replace('/orders"}', f'/orders", mask: [{columns}]{more}}}'))


def test_preview_hides_a_masked_column_and_what_is_made_of_it_in_a_flow_that_reads_a_table(orders, capsys):
    masked(orders)
    orders.land("orders", order(1, "7.25"), order(2, "8888.25"), order(3, "-9.25"))
    orders.run("orders", flows=["ingest"])
    out = said(capsys, orders, preview, "refine")
    assert "2 would come out, 1 would leave" in out
    assert "amount must be greater than 0, found ***" in out
    assert "amount must be at most 1000, found ***" in out
    for value in ("7.25", "725", "8888.25", "888825", "9.25"):
        assert value not in out


def test_preview_hides_a_masked_column_whatever_its_case(orders, capsys):
    masked(orders, "AMOUNT")
    orders.write(
        "transforms/orders.py",
        ORDERS_TRANSFORM.replace("return orders.", "return orders.select('*').").replace(
            '"cents", (F.col("amount") * 100).cast("bigint")', '"Amount", F.col("amount")'
        ),
    )
    orders.land("orders", order(1, "7.25"), {**order(2, "-9.25"), "aMount": "6.25"})
    ingest = said(capsys, orders, preview, "ingest")
    orders.run("orders", flows=["ingest"])
    refine = said(capsys, orders, preview, "refine")
    assert "1 would come out, 1 would leave" in refine
    for value in ("7.25", "9.25", "6.25"):
        assert value not in ingest + refine


def test_preview_shows_no_text_that_did_not_parse_where_a_column_is_masked(orders, capsys):
    masked(orders)
    orders.land(
        "orders", '{"order_id": "x", "Amount": "88.25"}', '{"order_id": 2, "amount": "77.25", "amount": "66.25"}'
    )
    file = Path(orders.storage["landing"]) / "orders" / "bytes.json"
    file.write_bytes(b'{"order_id": 3, "amount": "55.25", "updated_at": "\xff"}\n')
    out = said(capsys, orders, preview, "ingest")
    assert "3 would leave" in out
    assert out.count("masked: amount") == 3
    for value in ("88.25", "77.25", "66.25", "base64"):
        assert value not in out


def test_preview_hides_a_masked_column_under_the_name_a_transform_gives_it_and_in_the_flows_behind(orders, capsys):
    masked(orders)
    job = """
from microbatch import Append, Flow, Job, Source
from transforms import orders

JOB = Job(
    Flow("ingest", reads=Source("orders", schema="order_id BIGINT, amount DECIMAL(10,2), updated_at TIMESTAMP"),
         transform=orders.renamed, expects="price", writes=Append("bronze.orders")),
    Flow("refine", reads="bronze.orders", transform=orders.told, expects="orders", writes=Append("silver.orders")),
)
"""
    transforms = """
from pyspark.sql import functions as F


def renamed(orders):
    return orders.withColumnRenamed("amount", "price")


def told(orders):
    return orders.withColumn("note", F.concat(F.lit("paid "), F.col("price")))
"""
    orders.write("jobs/orders.py", job)
    orders.write("transforms/orders.py", transforms)
    rule = "name: price\nexpectations:\n  - {type: expect_column_values_to_be_between, kwargs: {column: price, min_value: 0}}\n"
    orders.write("expectations/orders/price.yml", rule)
    orders.write(
        "expectations/orders/orders.yml",
        "name: orders\nexpectations:\n  - {type: expect_column_values_to_match_regex, kwargs: {column: note, regex: seven}}\n",
    )
    orders.land("orders", order(1, "7.25"), order(2, "-9.25"), order(3, "8.25"))
    ingest = said(capsys, orders, preview, "ingest")
    assert "price must be at least 0, found ***" in ingest
    orders.run("orders", flows=["ingest"])
    refine = said(capsys, orders, preview, "refine")
    assert "note must match regex seven, found ***" in refine
    for value in ("7.25", "9.25", "8.25"):
        assert value not in ingest + refine


def test_preview_hides_what_was_observed_of_a_masked_column_over_the_batch(orders, capsys):
    masked(orders)
    orders.write("jobs/orders.py", ORDERS_JOB.replace('writes=Append("bronze', 'expects="most", writes=Append("bronze'))
    orders.write(
        "expectations/orders/most.yml",
        "name: most\nexpectations:\n  - {type: expect_column_max_to_be_between, kwargs: {column: amount, max_value: 1}}\n",
    )
    orders.land("orders", order(1, "7.25"))
    out = said(capsys, orders, preview, "ingest")
    assert "would stop: " in out
    assert "observed ***" in out
    assert "7.25" not in out


def test_preview_hides_fields_that_were_rescued_where_a_column_is_masked(orders, capsys):
    masked(orders, "email", ", unknown_fields: rescue")
    orders.land("orders", {**order(1), "email": "zoe@example.org"})
    out = said(capsys, orders, preview, "ingest")
    assert "1 would come out" in out
    assert "zoe@" not in out


def test_preview_does_not_quote_the_masked_value_that_a_transform_failed_on(orders):
    masked(orders)
    orders.write("jobs/orders.py", ORDERS_JOB.replace("amount DECIMAL(10,2)", "amount STRING"))
    orders.write("transforms/orders.py", ORDERS_TRANSFORM.replace('(F.col("amount") * 100)', 'F.col("amount")'))
    orders.write(
        "expectations/orders/orders.yml",
        "name: orders\nexpectations:\n  - {type: expect_column_values_to_not_be_null, kwargs: {column: order_id}}\n",
    )
    orders.land("orders", order(1, "seven"))
    orders.run("orders", flows=["ingest"])
    suite = orders.suite()
    job = suite.job("orders")
    with pytest.raises(MicrobatchError, match="CAST_INVALID_INPUT; the rest is not shown") as caught:
        preview.execute(suite, job, job.flow("refine"))
    assert "seven" not in "".join(traceback.format_exception(caught.value))


def test_preview_of_a_table_that_is_not_there_says_what_to_run_first(orders):
    suite = orders.suite()
    job = suite.job("orders")
    with pytest.raises(SourceUnavailable, match="first `microbatch run orders --flow ingest`") as caught:
        preview.execute(suite, job, job.flow("refine"))
    assert caught.value.exit_code == 5


def test_preview_names_a_file_that_cannot_be_read(orders, capsys):
    orders.write("conf/base/orders.yml", ORDERS_CONF.replace("json", "parquet"))
    orders.land("orders", {"order_id": 1})
    (Path(orders.storage["landing"]) / "orders" / "broken.parquet").write_text("no parquet")
    out = said(capsys, orders, preview, "ingest")
    assert "broken.parquet" in out
    assert "1 would come out" in out


@pytest.mark.parametrize("conf", [ORDERS_CONF, ORDERS_CONF + SCHEDULE])
def test_the_page_has_its_headings_in_their_order_and_no_others(orders, capsys, conf):
    orders.write("conf/base/orders.yml", conf)
    orders.land("orders", order(1))
    lines = said(capsys, orders, docs).splitlines()
    expected = ["## Pipeline: orders", *[f"### {name.replace('_', ' ')}" for name in HEADINGS]]
    assert [line for line in lines if line.startswith("#")] == expected
    schedule = next(line for line in lines if line.startswith("- Schedule"))
    assert schedule == (
        "- Schedule: cron `0 2 * * *`, time zone Europe/Berlin" if SCHEDULE in conf else "- Schedule: on demand"
    )


def test_the_page_tells_transforms_monitoring_and_columns(orders, capsys):
    orders.land("orders", order(1), order(2, "-1"))
    assert "No run yet" in said(capsys, orders, docs)
    orders.run("orders")
    out = said(capsys, orders, docs)
    assert "1. `ingest`: the rows of `orders` go to `bronze.orders` as they are." in out
    assert "2. `refine` (`transforms.orders.refine`, `bronze.orders` to `silver.orders`): Add the cents." in out
    monitored = next(line for line in out.splitlines() if line.startswith("| refine | 20"))
    assert monitored.split(" | ")[2:6] == ["2", "1", "1", "0"]
    assert "| `silver.orders.cents` | BIGINT | computed | `bronze.orders.amount` | `orders.amount` |" in out
    assert "source_orders -->|ingest| table_bronze__orders" in out


COPY_JOB = '''
"""What changed in the orders of another job."""

from microbatch import Append, Flow, Job

JOB = Job(Flow("copy", reads="silver.orders", writes=Append("gold.changes")))
'''


def test_a_reader_of_changes_in_another_job_is_previewed_planned_and_drawn(orders, capsys):
    orders.write("jobs/copies.py", COPY_JOB)
    orders.land("orders", order(1, "3.00"))
    orders.run("orders")
    suite = orders.suite()
    copies = suite.job("copies")
    preview.execute(suite, copies, copies.flow("copy"))
    assert "insert" in capsys.readouterr().out
    orders.run("copies")
    orders.land("orders", order(1, "4.00", minute=1))
    orders.run("orders")
    preview.execute(suite, copies, copies.flow("copy"))
    out = capsys.readouterr().out
    assert "1 row looked at (the pending changes of silver.orders)" in out
    assert ("update" in out, "4.00" in out, "insert" in out) == (True, True, False)
    plan.execute(suite, copies)
    assert "table silver.orders, its changes (written by orders.refine)" in capsys.readouterr().out
    docs.execute(suite, copies)
    page = capsys.readouterr().out
    assert "| silver.orders | table | of job orders | at each run of that job |  | copy |" in page
    assert "| `gold.changes.cents` | BIGINT | as it is | `silver.orders.cents` | `silver.orders.cents` |" in page
    assert "table_silver__orders -.->|copy| reader_copies" in said(capsys, orders, docs)


def test_a_transform_that_raises_over_a_row_is_told_in_a_line(orders, capsys):
    broken = ORDERS_TRANSFORM.replace('(F.col("amount") * 100).cast("bigint")', 'F.lit("x").cast("bigint")')
    orders.write("transforms/orders.py", ORDERS_TRANSFORM)
    orders.land("orders", order(1))
    orders.run("orders")
    orders.write("transforms/orders.py", broken.replace('F.lit("x")', 'F.concat(F.lit("x"), "order_id")'))
    suite = orders.suite()
    job = suite.job("orders")
    with pytest.raises(MicrobatchError, match="CAST_INVALID_INPUT") as caught:
        preview.execute(suite, job, job.flow("refine"))
    assert "\n" not in str(caught.value)
