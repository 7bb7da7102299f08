"""A web shop, as the business reads it: orders in euros, visits, and what a day in a country brought."""

from decimal import Decimal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

ORDER = (
    "order_id BIGINT, customer_id BIGINT, country STRING, currency STRING, amount DECIMAL(12,2), "
    "status STRING, ordered_at TIMESTAMP"
)
RATE = "day DATE, currency STRING, rate DECIMAL(18,8), published_at TIMESTAMP"
CLICK = "click_id STRING, session_id STRING, country STRING, page STRING, clicked_at TIMESTAMP"
BUSINESS_ZONE = "Europe/Berlin"  # the zone whose midnight ends a business day: the shop's books are kept there
CANCELLED = "cancelled"


def orders(orders: DataFrame, rates: DataFrame) -> DataFrame:
    """Date each order, and say what it is worth in euros by the rate of that day.

    Args:
        orders: has the columns of `ORDER`, amount in units of its currency; other columns pass through.
        rates: has the columns of `RATE`, one row per day and currency; rate is units of the currency for one euro.

    Returns:
        The same rows with order_date DATE [the day in BUSINESS_ZONE] and amount_eur DECIMAL(14,2) [EUR, rounded half up;
        null where the day has no rate of the currency].
    """
    quoted = rates.select(F.col("day").alias("order_date"), "currency", F.col("rate").alias("_rate"))
    dated = orders.withColumn("order_date", F.from_utc_timestamp("ordered_at", BUSINESS_ZONE).cast("date"))
    rate = F.when(F.col("currency") == "EUR", F.lit(Decimal(1))).otherwise(F.col("_rate"))
    euros = F.round(F.try_divide("amount", rate), 2).try_cast("decimal(14,2)")
    return dated.join(quoted, ["order_date", "currency"], "left").withColumn("amount_eur", euros).drop("_rate")


def clicks(clicks: DataFrame) -> DataFrame:
    """Date each click.

    Args:
        clicks: has the columns of `CLICK`; other columns pass through.

    Returns:
        The same rows with visit_date DATE [the day in BUSINESS_ZONE].
    """
    return clicks.withColumn("visit_date", F.from_utc_timestamp("clicked_at", BUSINESS_ZONE).cast("date"))


def visits(clicks: DataFrame) -> DataFrame:
    """Count visits and clicks per day and country.

    Args:
        clicks: rows of silver.clicks, all of the groups to be counted.

    Returns:
        One row per visit_date DATE and country STRING: visits BIGINT [distinct session_id], clicks BIGINT [rows].
    """
    return clicks.groupBy("visit_date", "country").agg(
        F.count_distinct("session_id").alias("visits"), F.count(F.lit(1)).alias("clicks")
    )


def revenue(orders: DataFrame, visits: DataFrame) -> DataFrame:
    """Add up revenue per day and country, and say how many visits became orders.

    A group is made again when one of its orders changes; clicks that come later count from then on.

    Args:
        orders: rows of silver.orders, all of the groups to be added up; the columns of `orders`.
        visits: rows of silver.visits, one per visit_date and country.

    Returns:
        One row per order_date DATE and country STRING: orders BIGINT [cancelled ones left out], revenue_eur DECIMAL(18,2)
        [EUR], visits BIGINT [0 where none is known], conversion_rate DECIMAL(9,6) [orders per visit; null without visits].
    """
    counts = F.col("status") != CANCELLED
    totals = orders.groupBy("order_date", "country").agg(
        F.count(F.when(counts, 1)).alias("orders"),
        F.coalesce(F.sum(F.when(counts, F.col("amount_eur"))), F.lit(0)).try_cast("decimal(18,2)").alias("revenue_eur"),
    )
    seen = visits.select(F.col("visit_date").alias("order_date"), "country", "visits")
    joined = totals.join(seen, ["order_date", "country"], "left")
    converted = F.try_divide(F.col("orders").cast("decimal(18,0)"), "visits").try_cast("decimal(9,6)")
    return joined.withColumn("conversion_rate", converted).withColumn("visits", F.coalesce("visits", F.lit(0)))
