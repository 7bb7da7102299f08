"""What an order is worth in euros, what a visit is, and what a day in a country brought."""

from datetime import date, datetime
from decimal import Decimal

import pytest
from chispa import assert_df_equality

from transforms import shop

DAY = date(2024, 5, 1)
AT = datetime(2024, 5, 1, 10, 0)


@pytest.fixture
def order(rows):
    """Orders, each given as what differs from one of 10 US dollars, with the rates of the day; the rows as dicts."""
    usual = {
        "order_id": 1,
        "customer_id": 7,
        "country": "US",
        "currency": "USD",
        "amount": Decimal("10.00"),
        "status": "paid",
        "ordered_at": AT,
    }

    def orders(*given, rates=((DAY, "USD", Decimal("1.08"), AT),)):
        made = rows(shop.ORDER, *(tuple((usual | each).values()) for each in given))
        return [row.asDict() for row in shop.orders(made, rows(shop.RATE, *rates)).collect()]

    return orders


def test_an_order_is_worth_its_amount_divided_by_the_rate_of_its_day_to_the_cent(order):
    found = order({}, {"amount": Decimal("0.01")}, {"amount": None}, {"currency": "EUR"})
    worth = sorted(map(str, (row["amount_eur"] for row in found)))
    assert worth == ["0.01", "10.00", "9.26", "None"]


def test_a_currency_or_a_day_without_a_rate_gives_no_euros_and_loses_no_order(order):
    found = order({"currency": "CHF"}, {"ordered_at": datetime(2024, 6, 1)}, {"currency": None}, {"ordered_at": None})
    assert [row["amount_eur"] for row in found] == [None] * 4


def test_a_rate_of_nothing_gives_no_euros_and_no_error(order):
    assert order({}, rates=[(DAY, "USD", Decimal(0), AT)])[0]["amount_eur"] is None


def test_a_business_day_ends_at_midnight_in_berlin(order):
    night = [{"ordered_at": datetime(2024, 4, 30, 21, 59)}, {"ordered_at": datetime(2024, 4, 30, 22, 0)}]
    assert sorted(row["order_date"] for row in order(*night)) == [date(2024, 4, 30), DAY]


def test_a_visit_is_a_session_however_many_clicks_it_has(rows):
    clicks = rows(
        shop.CLICK,
        ("a", "s1", "DE", "/", AT),
        ("b", "s1", "DE", "/cart", AT),
        ("c", "s2", "DE", "/", AT),
        ("d", "s1", "FR", "/", AT),
    )
    expected = rows(
        "visit_date DATE, country STRING, visits BIGINT, clicks BIGINT", (DAY, "DE", 2, 3), (DAY, "FR", 1, 1)
    )
    counted = shop.visits(shop.clicks(clicks))
    assert_df_equality(counted, expected, ignore_row_order=True, ignore_nullable=True)


def test_revenue_leaves_out_what_was_cancelled_and_says_how_many_visits_became_orders(rows):
    schema = "order_id BIGINT, order_date DATE, country STRING, status STRING, amount_eur DECIMAL(14,2)"
    orders = rows(
        schema,
        (1, DAY, "DE", "paid", Decimal("10.10")),
        (2, DAY, "DE", "placed", Decimal("5.05")),
        (3, DAY, "DE", "cancelled", Decimal("99.00")),
        (4, DAY, "FR", "cancelled", Decimal("1.00")),
    )
    visits = rows("visit_date DATE, country STRING, visits BIGINT, clicks BIGINT", (DAY, "DE", 8, 20))
    expected = rows(
        "order_date DATE, country STRING, orders BIGINT, revenue_eur DECIMAL(18,2), visits BIGINT, "
        "conversion_rate DECIMAL(9,6)",
        (DAY, "DE", 2, Decimal("15.15"), 8, Decimal("0.25")),
        (DAY, "FR", 0, Decimal("0.00"), 0, None),
    )
    found = shop.revenue(orders, visits)
    assert_df_equality(found, expected, ignore_row_order=True, ignore_nullable=True)
