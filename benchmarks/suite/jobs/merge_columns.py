"""Orders that come as parquet, the newest version of each."""

from microbatch import Flow, Job, Source, Upsert
from transforms import orders

JOB = Job(
    Flow(
        "keep",
        reads=Source("orders", schema=orders.ORDER),
        expects="orders",
        writes=Upsert("silver.columns", keys=["order_id"], newest_by="updated_at"),
    ),
)
