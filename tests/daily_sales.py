"""The repository's own suite in a folder of its own, with a little data."""

from __future__ import annotations

from pathlib import Path

from microbatch.testing import Bench

HERE = Path(__file__).resolve().parent.parent
LINE = {
    "household_id": 1,
    "store_id": 2,
    "basket_id": 3,
    "product_id": 4,
    "quantity": 1,
    "sales_value": 1.5,
    "retail_disc": 0.0,
    "coupon_disc": 0.0,
    "coupon_match_disc": 0.0,
    "week": 1,
    "transaction_timestamp": "2017-01-01T10:00:00Z",
}
PRODUCT = {"manufacturer_id": 1, "department": "GROCERY", "brand": "Private", "product_category": "SOUP"}


def daily_sales(bench: Bench, environment: str = "") -> None:
    """Three order lines, one of them paid with nothing, and the product they are of."""
    for room in ("jobs", "transforms", "expectations", "conf/base"):
        for file in (HERE / room).rglob("*"):
            if file.suffix in (".py", ".yml"):
                bench.write(str(file.relative_to(HERE)), file.read_text())
    bench.write("conf/local/environment.yml", environment)
    bench.land("order_lines", *[{**LINE, "basket_id": i, "sales_value": 1.5 - i} for i in range(3)])
    bench.land("products", {"product_id": 4, **PRODUCT, "product_type": "CAN", "package_size": "1"})
