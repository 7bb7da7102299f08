"""Orders held against nothing."""

from microbatch import Append, Flow, Job, Source
from transforms import orders

JOB = Job(
    Flow(
        "keep",
        reads=Source("orders", schema=orders.ORDER),
        writes=Append("bronze.unjudged"),
    ),
)
