"""Daily sales per store and department, from point-of-sale order lines."""

from microbatch import Append, Flow, Job, Replace, Source, Upsert
from transforms import sales

ORDER_LINES = Source("order_lines", schema=sales.ORDER_LINE)
PRODUCTS = Source("products", schema=sales.PRODUCT)

JOB = Job(
    Flow("ingest_order_lines", reads=ORDER_LINES, expects="order_lines", writes=Append("bronze.order_lines")),
    Flow(
        "ingest_products",
        reads=PRODUCTS,
        expects="products",
        writes=Upsert("bronze.products", keys=["product_id"]),
    ),
    Flow(
        "refine_sales",
        reads="bronze.order_lines",
        snapshots={"products": "bronze.products"},
        transform=sales.refine,
        expects="sales",
        writes=Upsert(
            "silver.sales", keys=["order_id", "product_id"], newest_by="ordered_at", cluster_by=["order_date"]
        ),
    ),
    Flow(
        "total_daily_sales",
        reads="silver.sales",
        recompute_by=["order_date"],
        transform=sales.daily_totals,
        expects="daily_sales",
        writes=Replace("gold.daily_sales", keys=["order_date"]),
    ),
)
