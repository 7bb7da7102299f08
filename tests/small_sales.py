"""A small landing for `daily_sales`: three days of order lines, one bad line among them, and a product catalogue."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DAYS, BASKETS, LINES = 3, 5, 4  # days, baskets a day, lines a basket
GOOD = DAYS * BASKETS * LINES


def land(landing: Path) -> None:
    """Write the files of all days and the catalogue: 60 good lines, and one on which nothing was paid."""
    products = landing / "products"
    products.mkdir(parents=True)
    catalogue = [
        {
            "product_id": product,
            "manufacturer_id": 7,
            "department": "GROCERY" if product % 2 else "DRUG GM",
            "brand": "National",
            "product_category": "TEA",
            "product_type": "GREEN TEA",
            "package_size": "1 LB",
        }
        for product in range(1, LINES + 1)
    ]
    pq.write_table(pa.Table.from_pylist(catalogue), products / "products.parquet")
    for day in range(1, DAYS + 1):
        land_day(landing, day)
    bad = {**line(DAYS, 1, 1), "basket_id": 999, "sales_value": 0.0}
    _write(landing / "order_lines" / "late.json", [bad])


def land_day(landing: Path, day: int) -> None:
    """Write the file of one day of January 2017."""
    lines = [line(day, basket, product) for basket in range(1, BASKETS + 1) for product in range(1, LINES + 1)]
    _write(landing / "order_lines" / f"2017-01-{day:02}.json", lines)


def line(day: int, basket: int, product: int) -> dict[str, object]:
    """One line of one basket, as a till sends it."""
    return {
        "household_id": basket,
        "store_id": 1 + basket % 2,
        "basket_id": day * 100 + basket,
        "product_id": product,
        "quantity": product,
        "sales_value": round(1.25 * product + day, 2),
        "retail_disc": 0.0,
        "coupon_disc": 0.0,
        "coupon_match_disc": 0.0,
        "week": 1,
        "transaction_timestamp": f"2017-01-{day:02}T{8 + basket:02}:15:00Z",
    }


def _write(file: Path, lines: list[dict[str, object]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f"_{file.name}")
    half.write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    half.rename(file)
