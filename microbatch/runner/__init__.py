"""Runs jobs: which flows have something to do, in which order, what happens when one fails, and what is said of it."""

from microbatch.runner.report import FlowRun, Report
from microbatch.runner.run import run

__all__ = ["FlowRun", "Report", "run"]
