"""Table writes: the targets of flows by Spark, the engine's own tables by delta-rs."""
