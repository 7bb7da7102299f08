"""`trace`: where a row is, and which batch brought it; without a JVM."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest

from microbatch.commands import trace
from microbatch.sink import ops
from microbatch.testing import Bench
from tests.orders import ORDERS_JOB, order


def said(capsys, bench: Bench, *keys: str) -> str:
    suite = bench.suite()
    capsys.readouterr()
    assert trace.execute(suite, suite.job("orders"), keys) == 0
    return capsys.readouterr().out


def part(text: str, name: str) -> str:
    """What is said of one table, or of quarantine."""
    return next(block for block in text.split("\n\n") if block.startswith(name))


@pytest.mark.slow
def test_a_row_is_told_in_each_table_with_its_batch_and_what_it_superseded(orders: Bench, capsys):
    first = orders.land("orders", order(1, "1.00", minute=1), order(2))
    orders.run("orders")
    second = orders.land("orders", order(1, "2.00", minute=2), order(3, "-5.00"))
    orders.run("orders")
    orders.land("orders", order(4))
    orders.run("orders")  # rewrites the file of order 1, and does not change it
    orders.land("orders", order(1, "9.00", minute=0))
    orders.run("orders")

    text = said(capsys, orders, "order_id=1")
    bronze, silver = part(text, "bronze.orders"), part(text, "silver.orders")
    assert bronze.count("brought by batch") == 3
    assert f"it read {first}" in bronze and f"it read {second}" in bronze
    assert "amount 2.00" in silver.splitlines()[1]
    assert "brought by batch 1 of run" in silver.splitlines()[2]
    assert "it read bronze.orders at version 1" in silver.splitlines()[2]
    assert "superseded by batch 1: amount 1.00" in silver.splitlines()[3]
    assert "brought by batch 0 of run" in silver.splitlines()[4]
    assert "2 other rows of bronze.orders have this key; the newest updated_at won" in silver
    assert "quarantine: 0 letters" in text

    text = said(capsys, orders, "order_id=3")
    assert "is not there" in part(text, "silver.orders")
    letter = part(text, "quarantine: 1 letter")
    assert "open, flow refine, batch 1" in letter
    assert "amount must be greater than 0, found -5.00" in letter

    text = said(capsys, orders, "order_id=1", "amount=1.00")
    assert part(text, "bronze.orders").count("brought by") == 1
    silver = part(text, "silver.orders")
    assert "was there" in silver and "gone since batch 1" in silver


@pytest.mark.slow
def test_a_deleted_row_is_told_with_the_batch_that_removed_it(orders: Bench, capsys):
    deleting = ORDERS_JOB.replace('newest_by="updated_at"', 'newest_by="updated_at", delete_when="amount = 0.01"')
    orders.write("jobs/orders.py", deleting)
    orders.land("orders", order(1), order(2))
    orders.run("orders")
    orders.land("orders", order(1, "0.01", minute=5))
    orders.run("orders")
    silver = part(said(capsys, orders, "order_id=1"), "silver.orders")
    assert "is not there" in silver
    assert "was there: order_id 1, amount 1.00" in silver
    assert "gone since batch 1 of run" in silver
    assert "deleted by batch 1" in silver


def test_letters_are_found_by_value_whatever_its_type_and_what_cannot_be_known_is_said(house):
    house.letter("aa1", '{"order_id": 7, "amount": 1.50}')
    house.letter("aa2", '{"order_id": "7", "amount": null}', status="replayed")
    house.letter("aa3", '{"order_id": 77}')
    house.letter("aa4", '{"order_id": 7, "amo', kind="parse")
    house.letter("aa5", '{"order_id": "***"}')
    house.letter("aa6", '{"path": "x.json"}', kind="file")
    called = house.call("trace", "orders", "--key", "order_id=7")
    assert called.exit_code == 0
    assert "quarantine: 2 letters" in called.stdout
    assert "aa1" in called.stdout and "aa2" in called.stdout
    assert "3 open letters (files, batches, texts, hidden values) may hold it too" in called.stdout
    assert (
        "quarantine: 1 letter\n" in house.call("trace", "orders", "--key", "order_id=7", "--key", "amount=1.5").stdout
    )


def test_a_remembered_deletion_is_told(house):
    at = datetime.now(timezone.utc) - timedelta(hours=2)
    row = {
        "job": "orders",
        "flow": "refine",
        "query_id": "q",
        "batch_id": 3,
        "table": "silver.orders",
        "deleted_at": at,
    }
    ops.append(house.warehouse, "deletes", [{**row, "key": '{"order_id":7}', "version": '{"updated_at":"2024-01-01"}'}])
    import pyarrow as pa
    from deltalake import write_deltalake

    write_deltalake(f"{house.warehouse}/silver/orders", pa.table({"order_id": [1, 2]}))
    assert "deleted by batch 3" in house.call("trace", "orders", "--key", "order_id=7").stdout
    assert "deleted by" not in house.call("trace", "orders", "--key", "order_id=8").stdout


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("order_id", '"order_id" is not COLUMN=VALUE'),
        ("order=7", "has a column order; did you mean order_id?"),
        ("=7", '"=7" is not COLUMN=VALUE'),
    ],
)
def test_a_key_that_cannot_be_is_one_line_and_exit_code_2(house, key, line):
    called = house.call("trace", "orders", "--key", key)
    assert called.exit_code == 2
    assert line in called.stderr
    assert len(called.stderr.splitlines()) == 1


def test_a_value_that_the_column_does_not_take_is_exit_code_2(house):
    import pyarrow as pa
    from deltalake import write_deltalake

    write_deltalake(f"{house.warehouse}/bronze/orders", pa.table({"order_id": [1]}))
    called = house.call("trace", "orders", "--key", "order_id=seven")
    assert (called.exit_code, called.stdout) == (2, "")
    assert '"seven" is no value of column order_id, which is int64' in called.stderr


@pytest.fixture
def numbers(house):
    """The orders with one row of numbers in the table `bronze.orders`."""
    import pyarrow as pa
    from deltalake import write_deltalake

    long = Decimal("1234567890123456789012345678.0000000001")
    row = {"tiny": 7, "order_id": 1, "amount": Decimal("1.00"), "long": long, "share": 0.1}
    types = [pa.int8(), pa.int64(), pa.decimal128(9, 2), pa.decimal128(38, 10), pa.float64()]
    columns = {name: pa.array([value], kind) for (name, value), kind in zip(row.items(), types, strict=True)}
    columns["parts"] = pa.array([["a"]])
    write_deltalake(f"{house.warehouse}/bronze/orders", pa.table(columns))
    return house


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("order_id", "99999999999999999999"),
        ("tiny", "300"),
        ("amount", "1.005"),
        ("amount", "12345678.00"),
        ("amount", "NaN"),
        ("amount", "Infinity"),
        ("parts", "a"),
    ],
)
def test_a_number_that_the_column_cannot_hold_whole_is_exit_code_2_in_one_line(numbers, column, value):
    called = numbers.call("trace", "orders", "--key", f"{column}={value}")
    assert (called.exit_code, called.stdout) == (2, "")
    assert f'"{value}" is no value of column {column}, which is ' in called.stderr
    assert len(called.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("tiny", "7"),
        ("amount", "1.000"),
        ("amount", "1e0"),
        ("long", "1234567890123456789012345678.0000000001"),
        ("share", "0.1"),
    ],
)
def test_a_number_is_found_however_it_is_written(numbers, column, value):
    called = numbers.call("trace", "orders", "--key", f"{column}={value}")
    assert called.exit_code == 0, called.stderr
    assert "order_id 1, amount 1.00" in part(called.stdout, "bronze.orders")


@pytest.mark.parametrize("value", ["nan", "inf", "1e999"])
def test_a_number_that_is_none_is_looked_for_in_a_column_that_may_hold_it(numbers, value):
    called = numbers.call("trace", "orders", "--key", f"share={value}")
    assert called.exit_code == 0, called.stderr
    assert "is not there" in part(called.stdout, "bronze.orders")


LATE_JOB = '''
"""Orders under their long numbers, from a table of another job."""

from microbatch import Flow, Job, Upsert
from transforms import late

JOB = Job(Flow("renumber", reads="bronze.orders", transform=late.renumber,
               writes=Upsert("silver.late", keys=["order_id"], newest_by="updated_at")))
'''


@pytest.mark.slow
def test_a_key_that_is_too_wide_for_the_column_of_another_job_s_table_is_found_where_it_is(orders: Bench, capsys):
    orders.write("jobs/orders.py", ORDERS_JOB.replace("order_id BIGINT", "order_id INT"))
    orders.write("jobs/late.py", LATE_JOB)
    orders.write("conf/base/late.yml", "owner: tests\n")
    orders.write(
        "transforms/late.py",
        "from pyspark.sql import functions as F\n\n\ndef renumber(orders):\n"
        '    return orders.withColumn("order_id", F.col("order_id") + F.lit(3_000_000_000))\n',
    )
    orders.land("orders", order(1))
    orders.run("orders")
    orders.run("late")
    suite = orders.suite()
    capsys.readouterr()
    assert trace.execute(suite, suite.job("late"), ["order_id=3000000001"]) == 0
    assert "brought by batch 0" in part(capsys.readouterr().out, "silver.late")


def test_a_masked_value_is_hidden(house):
    import pyarrow as pa
    from deltalake import write_deltalake

    conf = house.root / "conf/base/orders.yml"
    conf.write_text(conf.read_text().replace("format: json,", "format: json, mask: [EMAIL],"))
    write_deltalake(f"{house.warehouse}/bronze/orders", pa.table({"order_id": [1], "email": ["a@example.com"]}))
    out = house.call("trace", "orders", "--key", "order_id=1").stdout
    assert "email ***" in out
    assert "a@example.com" not in out


def test_no_jvm_is_started(house):
    house.letter("a1")
    script = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from microbatch.cli import group\n"
        f"called = CliRunner().invoke(group, ['trace', 'orders', '--key', 'order_id=1', '--suite', {str(house.root)!r}])\n"
        "assert called.exit_code == 0, called.output\n"
        "context = sys.modules.get('pyspark.core.context')\n"
        "assert context is None or context.SparkContext._gateway is None, 'a JVM was started'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_column_is_followed_over_its_renames_to_each_table_and_letter(house):
    import pyarrow as pa
    from deltalake import write_deltalake

    def column(table, name, how, *inputs):
        row = {"job": "orders", "table": table, "column": name, "type": "BIGINT", "flow": "f", "how": how}
        return {**row, "inputs": list(inputs), "sources": [], "suite_version": "v"}

    ops.append(
        house.warehouse,
        "lineage",
        [
            column("bronze.orders", "order_id", "as it is", "orders.order_id"),
            column("silver.orders", "number", "renamed", "bronze.orders.order_id"),
            column("silver.orders", "double", "computed", "bronze.orders.order_id"),
        ],
    )
    write_deltalake(f"{house.warehouse}/bronze/orders", pa.table({"order_id": [7]}))
    write_deltalake(f"{house.warehouse}/silver/orders", pa.table({"number": [7, 8], "double": [14, 16]}))
    house.letter("a1", '{"order_id": 7}')
    out = house.call("trace", "orders", "--key", "number=7").stdout
    assert "bronze.orders (flow ingest; order_id is number)\n  order_id 7" in out
    assert "silver.orders (flow refine)\n  number 7, double 14" in out
    assert "quarantine: 1 letter" in out
    assert "has no column double" in house.call("trace", "orders", "--key", "double=14").stdout
