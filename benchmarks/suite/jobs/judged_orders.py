"""Orders held against twelve rules."""

from microbatch import Append, Flow, Job, Source
from transforms import orders

JOB = Job(
    Flow(
        "keep",
        reads=Source("orders", schema=orders.ORDER),
        expects="twelve",
        writes=Append("bronze.judged"),
    ),
)
