"""The goals, each with its benchmark. Their order is that of the table."""

from __future__ import annotations

from benchmarks.goals import bulk, cluster, database, growth, journey, rules, start, warm
from benchmarks.goals.goal import Goal

GOALS: dict[str, Goal] = {
    goal.name: goal
    for goal in (
        warm.APPEND,
        warm.MERGE,
        journey.WHOLE_JOB,
        start.IDLE,
        start.COLD,
        rules.TWELVE,
        growth.MERGE,
        warm.REPLAY,
        bulk.BACKLOG,
        growth.BATCHES,
        bulk.DUCKDB,
        start.EIGHT,
        database.DATABASE,
        cluster.CLUSTER,
        journey.MAKE_RUN,
    )
}
