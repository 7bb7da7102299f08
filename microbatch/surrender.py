"""`--accept batch`: a batch nobody can mend goes to quarantine as it came, and the flow goes on behind it."""

from __future__ import annotations

from pyspark.sql import Observation
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from microbatch import quarantine
from microbatch.outcome import Outcome
from microbatch.sink import ops
from microbatch.sources.record import Record
from microbatch.work import Judged, Kept, Work, file_letters, origin_of, outcome_of


def surrender(work: Work, kept: Kept) -> Outcome:
    """Send a whole batch to quarantine as it came, because somebody said so; the flow goes on behind it."""
    rows, is_bad = kept.rows, F.col("_unparsed").isNotNull()
    if (
        kept.groups is not None
    ):  # of a recomputing flow the groups are what came: the next change of one rewrites it whole
        rows, is_bad = kept.groups.withColumn("_row", F.struct(*work.flow.recompute_by)), F.lit(False)
    rows = rows.withColumn("_row", quarantine.input_of(rows))
    counts = Observation("given up")
    unparsed = F.octet_length("_unparsed") if kept.groups is None else F.lit(None)
    size = F.coalesce(unparsed, quarantine.size(rows, work.shape.input if kept.groups is None else StructType()))
    counted = rows.observe(
        counts,
        F.count(F.lit(1)).alias("read"),
        F.count(F.when(is_bad, 1)).alias("unparsed"),
        F.sum(size).alias("bytes"),
    )
    seen = counted.localCheckpoint(eager=True)
    read, bad = counts.get["read"], counts.get["unparsed"]
    reason = [F.lit(text) for text in ("batch", "", "critical", "given up with --accept batch")]
    reasons = F.array(F.struct(*[v.alias(n) for n, v in zip(quarantine.REASON, reason, strict=True)]))
    transformed = read - bad
    parsed = seen if kept.groups is not None else seen.where("_unparsed IS NULL")
    letters = [
        quarantine.of_rows(parsed, F.lit(True), reasons, work.mask),
        *([quarantine.of_text(seen, work.mask)] if bad else []),
    ]
    quarantine.write(origin_of(work, kept), letters, read, counts.get["bytes"] or 0, file_letters(kept), again=True)
    if kept.broken:
        Record(work.checkpoint).forgive(kept.batch_id, kept.broken)
    outcome = outcome_of(work, kept, Judged(seen, read, bad, transformed, transformed, 0, {}, ()), 0)
    ops.record(work.warehouse, outcome)
    return outcome
