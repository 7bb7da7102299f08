"""microbatch: declared micro-batch jobs on Spark, checked, accounted for, exactly once."""

from microbatch.job import Append, Flow, History, Job, Replace, Snapshot, Source, Upsert

__all__ = ["Append", "Flow", "History", "Job", "Replace", "Snapshot", "Source", "Upsert"]
