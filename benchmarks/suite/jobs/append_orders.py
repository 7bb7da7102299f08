"""Orders, every row kept."""

from microbatch import Append, Flow, Job, Source
from transforms import orders

JOB = Job(
    Flow(
        "keep",
        reads=Source("orders", schema=orders.ORDER),
        expects="orders",
        writes=Append("bronze.orders"),
    ),
)
