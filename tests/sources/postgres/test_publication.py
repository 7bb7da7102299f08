"""A publication has to tell all of a table, all the time: what it leaves out for a while is never told."""

from __future__ import annotations

import pytest

from tests.sources.postgres.conftest import Suite, orders
from tests.sources.postgres.plainly import stopped

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "meanwhile",
    [
        "ALTER PUBLICATION told DROP TABLE orders; INSERT INTO orders (order_id) VALUES (3)",
        "ALTER PUBLICATION told DROP TABLE orders; INSERT INTO orders (order_id) VALUES (3);"
        "ALTER PUBLICATION told ADD TABLE orders",
        "DROP PUBLICATION told; INSERT INTO orders (order_id) VALUES (3); CREATE PUBLICATION told FOR TABLE orders",
        "ALTER PUBLICATION told SET (publish = 'insert'); DELETE FROM orders",
        "ALTER PUBLICATION told SET TABLE orders WHERE (order_id > 1); INSERT INTO orders (order_id) VALUES (0)",
    ],
)
def test_a_publication_that_did_not_tell_everything_for_a_while_stops_the_job(suite: Suite, meanwhile: str):
    orders(suite.database)
    suite.database.do("INSERT INTO orders (order_id) VALUES (1), (2)", "CREATE PUBLICATION told FOR TABLE orders")
    reader = suite.reader(mode="changes", slot=f"slot_{suite.database.name}", publication="told")
    reader.run()
    suite.database.do(*meanwhile.split(";"))
    assert "publication told was changed" in stopped(reader)
    suite.database.do("DROP PUBLICATION IF EXISTS told", "CREATE PUBLICATION told FOR TABLE orders")
    anew = Suite(suite.root / "anew", suite.database).reader(mode="changes", slot=reader.conf.slot, publication="told")
    assert anew.run() == suite.database.rows("SELECT count(*) FROM orders")[0][0]


@pytest.mark.parametrize("of", ["ALL TABLES", "TABLES IN SCHEMA public", "TABLE orders, others"])
def test_a_publication_that_tells_other_tables_too_may_change_for_those(suite: Suite, of: str):
    orders(suite.database)
    suite.database.do("CREATE TABLE others (id int PRIMARY KEY)", f"CREATE PUBLICATION told FOR {of}")
    reader = suite.reader(mode="changes", slot=f"slot_{suite.database.name}", publication="told")
    reader.run()
    suite.database.do(
        "ALTER PUBLICATION told SET TABLE orders" if "orders" in of else "DROP TABLE others",
        "INSERT INTO orders (order_id) VALUES (1)",
    )
    assert reader.run() == 1


def test_a_publication_that_had_changed_before_the_first_batch_is_copied_anew(suite: Suite):
    orders(suite.database)
    reader = suite.reader(mode="changes", slot=f"slot_{suite.database.name}")
    reader.input().fetch()
    suite.database.do(f"DROP PUBLICATION slot_{suite.database.name}", "INSERT INTO orders (order_id) VALUES (1)")
    assert reader.run() == 1


def test_a_publication_of_some_rows_is_refused(suite: Suite):
    orders(suite.database)
    suite.database.do("CREATE PUBLICATION part FOR TABLE orders WHERE (order_id > 10)")
    suite.write("mode: changes, publication: part")
    ended = suite.run()
    assert ended.exit_code == 2, ended.output
    assert "publication part leaves out rows of public.orders" in ended.output.replace("\n", " ")
