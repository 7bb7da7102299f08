"""A web shop's revenue in euros per day and country, with how many visits became orders."""

from microbatch import Flow, Job, Replace, Source, Upsert
from transforms import shop

RATES = Source("rates", schema=shop.RATE)
CLICKS = Source("clicks", schema=shop.CLICK)
ORDERS = Source("orders", schema=shop.ORDER)

JOB = Job(
    Flow(
        "keep_rates",
        reads=RATES,
        expects="rates",
        writes=Upsert("silver.rates", keys=["day", "currency"], newest_by="published_at"),
    ),
    Flow(
        "keep_clicks",
        reads=CLICKS,
        transform=shop.clicks,
        expects="clicks",
        writes=Upsert("silver.clicks", keys=["click_id"], cluster_by=["visit_date"]),
    ),
    Flow(
        "count_visits",
        reads="silver.clicks",
        recompute_by=["visit_date", "country"],
        transform=shop.visits,
        writes=Replace("silver.visits", keys=["visit_date", "country"]),
    ),
    Flow(
        "keep_orders",
        reads=ORDERS,
        snapshots={"rates": "silver.rates"},
        transform=shop.orders,
        expects="orders",
        writes=Upsert(
            "silver.orders",
            keys=["order_id"],
            newest_by="_lsn",
            delete_when="_op = 'delete'",
            cluster_by=["order_date"],
        ),
    ),
    Flow(
        "total_revenue",
        reads="silver.orders",
        recompute_by=["order_date", "country"],
        snapshots={"visits": "silver.visits"},
        transform=shop.revenue,
        expects="revenue",
        writes=Replace("gold.revenue", keys=["order_date", "country"]),
    ),
)
