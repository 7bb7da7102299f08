"""Orders held against the same rules but that of uniqueness."""

from microbatch import Append, Flow, Job, Source
from transforms import orders

JOB = Job(
    Flow(
        "keep",
        reads=Source("orders", schema=orders.ORDER),
        expects="rules",
        writes=Append("bronze.row_rules"),
    ),
)
