"""What an order line means once refined, and what a day's totals hold."""

from datetime import date, datetime
from decimal import Decimal
from math import inf, nan

import pytest
from chispa import assert_df_equality

from transforms import sales

AT = datetime(2017, 1, 1, 11, 53, 26)
BAGEL = (7, 2, " PASTRY ", "National", "ROLLS", "ROLLS: BAGELS", "4 OZ")
LINE = {
    "household_id": 900,
    "store_id": 330,
    "basket_id": 31198570044,
    "product_id": 7,
    "quantity": 1,
    "sales_value": 0.5,
    "retail_disc": 0.1,
    "coupon_disc": 0.0,
    "coupon_match_disc": 0.0,
    "week": 1,
    "transaction_timestamp": AT,
}


@pytest.fixture
def refine(rows):
    """Order lines, each given as what differs from LINE, refined against one known product; the rows as dicts."""

    def refined(*lines, products=(BAGEL,), schema=sales.ORDER_LINE, **more):
        order_lines = rows(schema, *(tuple((LINE | line | more).values()) for line in lines))
        return [row.asDict() for row in sales.refine(order_lines, rows(sales.PRODUCT, *products)).collect()]

    return refined


def test_a_line_gets_the_names_of_the_business_and_loses_those_of_the_source(refine):
    assert refine({}) == [
        {
            "order_id": 31198570044,
            "product_id": 7,
            "customer_id": 900,
            "store_id": 330,
            "quantity": 1,
            "amount": Decimal("0.50"),
            "retail_discount": Decimal("0.10"),
            "coupon_discount": Decimal("0.00"),
            "coupon_match_discount": Decimal("0.00"),
            "ordered_at": AT,
            "order_date": date(2017, 1, 1),
            "department": "PASTRY",
            "brand": "National",
            "product_category": "ROLLS",
            "week": 1,
        }
    ]


def test_money_is_rounded_half_up_to_exact_cents_and_what_is_no_amount_becomes_null(refine):
    given = [1.776357e-15, 2.675, 0.005, -0.005, 19.99, 9_999_999_999.99, 1e10, nan, inf, None]
    cents = [Decimal(text) for text in ("0.00", "2.68", "0.01", "-0.01", "19.99", "9999999999.99")] + [None] * 4
    assert [row["amount"] for row in refine(*({"sales_value": value} for value in given))] == cents


def test_a_day_begins_at_midnight_of_the_business_zone(refine, monkeypatch):
    late = datetime(2017, 1, 1, 4, 1, 20)
    assert refine({"transaction_timestamp": late})[0]["order_date"] == date(2017, 1, 1)
    monkeypatch.setattr(sales, "BUSINESS_ZONE", "America/New_York")
    moved = refine({"transaction_timestamp": late})[0]
    assert (moved["order_date"], moved["ordered_at"]) == (date(2016, 12, 31), late)


def test_an_unknown_or_blank_product_leaves_nulls_and_keeps_the_row(refine):
    blank = (8, 1, "  ", "", None, None, None)
    lines = refine({}, {"product_id": 8}, {"product_id": 9}, {"product_id": None}, products=(BAGEL, blank))
    departments = sorted(((row["product_id"], row["department"], row["brand"]) for row in lines), key=str)
    assert departments == [(7, "PASTRY", "National"), (8, None, None), (9, None, None), (None, None, None)]


def test_a_line_of_nothing_but_nulls_is_still_a_line(refine):
    assert set(refine(dict.fromkeys(LINE))[0].values()) == {None}


def test_columns_it_does_not_know_pass(refine):
    schema = sales.ORDER_LINE + ", _row STRING, _file STRING"
    unknown = {"_row": "{}", "_file": "a.json"}
    assert refine(unknown, schema=schema)[0].items() >= unknown.items()


def test_totals_are_per_day_store_and_department_and_count_an_order_once(rows):
    day, next_day = date(2017, 1, 1), date(2017, 1, 2)
    given = rows(
        "order_id BIGINT, order_date DATE, store_id BIGINT, department STRING, quantity BIGINT, amount DECIMAL(12,2)",
        (1, day, 330, "MEAT", 2, Decimal("1.10")),
        (1, day, 330, "MEAT", 1, Decimal("2.20")),
        (2, day, 330, "MEAT", 1, Decimal("3.30")),
        (2, day, 330, None, 5, Decimal("0.01")),
        (2, day, 330, None, None, None),
        (3, day, 331, "MEAT", 1, Decimal("9999999999.99")),
        (4, next_day, 330, "MEAT", None, None),
    )
    expected = rows(
        "order_date DATE, store_id BIGINT, department STRING, orders BIGINT, lines BIGINT, units BIGINT, "
        "revenue DECIMAL(18,2)",
        (day, 330, "MEAT", 2, 3, 4, Decimal("6.60")),
        (day, 330, None, 1, 2, 5, Decimal("0.01")),
        (day, 331, "MEAT", 1, 1, 1, Decimal("9999999999.99")),
        (next_day, 330, "MEAT", 1, 1, None, None),
    )
    totals = sales.daily_totals(given)
    assert_df_equality(totals, expected, ignore_row_order=True, ignore_nullable=True)
