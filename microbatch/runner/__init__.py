"""Runs jobs: which flows have something to do, in which order, what happens when one fails, and what is said of it."""

from microbatch.runner.run import FlowRun, Report, run

__all__ = ["FlowRun", "Report", "run"]
