"""One subject in a process of its own that stays warm: `python -m benchmarks.worker engine|defaults|tuned`.

It takes a line of JSON on stdin for each turn and answers with one on stdout; what Spark says goes to a log. Each batch's
time is Spark's own (`triggerExecution` of its progress), so it is the same clock for all subjects.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql.streaming import StreamingQueryListener

from benchmarks.orders_by_hand import Orders

SUITE = Path(__file__).resolve().parent / "suite"
JARS = Path(os.environ.get("MICROBATCH_JARS", ".jars"))
PARTS = ("addBatch", "walCommit", "commitOffsets", "queryPlanning", "latestOffset", "getBatch")


class Progress(StreamingQueryListener):
    """What Spark tells of each batch of each query."""

    def __init__(self) -> None:
        self.batches: list[dict[str, Any]] = []
        self._heard: set[int] = set()

    def hear(self, spark: SparkSession) -> None:
        """Listen to the queries of the session that is the active one now: the engine takes that."""
        active = SparkSession.getActiveSession() or spark
        which = int(active._jsparkSession.hashCode())
        if which not in self._heard:
            self._heard.add(which)
            active.streams.addListener(self)

    def onQueryStarted(self, event: Any) -> None:  # noqa: N802
        """Nothing."""

    def onQueryProgress(self, event: Any) -> None:  # noqa: N802
        """Keep the times of a batch that had something to do."""
        told = json.loads(event.progress.json)
        took = told["durationMs"]
        if "addBatch" in took:
            parts = {part: took.get(part, 0) / 1000 for part in PARTS}
            self.batches.append({"id": told["batchId"], "seconds": took["triggerExecution"] / 1000, **parts})

    def onQueryIdle(self, event: Any) -> None:  # noqa: N802
        """Nothing."""

    def onQueryTerminated(self, event: Any) -> None:  # noqa: N802
        """Nothing."""

    def wait(self, count: int, within_s: float = 60) -> list[dict[str, Any]]:
        """The batches of a turn once so many are told of: that happens a little after they end."""
        until = time.monotonic() + within_s
        while len(self.batches) < count:
            if time.monotonic() > until:
                raise RuntimeError(f"{count} batches ended and Spark told of {len(self.batches)}")
            time.sleep(0.01)
        return sorted(self.batches, key=lambda batch: batch["id"])


def jobs_so_far(spark: SparkSession) -> int:
    """How many Spark jobs this session has begun."""
    return int(spark.sparkContext._jsc.sc().dagScheduler().numTotalJobs())


class Jobs:
    """How many Spark jobs each batch of a turn takes; what comes before the first, once a query, is not of it."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark, self.counts = spark, list[int]()
        self._mark = jobs_so_far(spark)

    def begins(self) -> None:
        """A batch begins."""
        self._mark = jobs_so_far(self._spark)

    def ends(self) -> None:
        """A batch has ended; one of which nobody said that it began, when the one before it ended."""
        now = jobs_so_far(self._spark)
        self.counts.append(now - self._mark)
        self._mark = now


class Engine:
    """This suite."""

    def __init__(self) -> None:
        from microbatch import session
        from microbatch.config import load

        self.spark = session.start("benchmarks", load(SUITE).spark_conf)

    def run(self, job: str, home: Path, env: str, jobs: Jobs) -> None:
        """Take in what has landed."""
        from microbatch.config import load
        from microbatch.runner import run

        storage = {name: str(home / name) for name in ("landing", "warehouse", "checkpoints", "reports")}

        def reached(step: str, _: int) -> None:
            if step in ("keep", "commit"):
                (jobs.begins if step == "keep" else jobs.ends)()

        report = run(load(SUITE, env, storage=storage), [job], reached=reached)
        if report.errors:
            raise report.errors[0]


class Hand:
    """The same jobs by hand."""

    def __init__(self, tuned: bool) -> None:
        from benchmarks.hand import session

        self.spark = session("benchmarks by hand", JARS.resolve(), tuned)

    def run(self, job: str, home: Path, env: str, jobs: Jobs) -> None:
        """Take in what has landed."""
        orders = Orders(self.spark, home / "landing", home)
        orders.begins, orders.ends = jobs.begins, jobs.ends
        orders.run(job)


def serve(subject: Engine | Hand) -> None:
    """Answer one request after the other until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    progress = Progress()
    validation: Any = None
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "validate":
            validation = validation or _validation(subject.spark, request["by"])
            before = jobs_so_far(subject.spark)
            found: dict[str, Any] = {"seconds": validation.of(Path(request["file"]))}
            found["jobs"] = jobs_so_far(subject.spark) - before
        else:
            found = _turn(subject, progress, request)
        print(json.dumps(found), file=answers, flush=True)


def _validation(spark: SparkSession, by: str) -> Any:
    """Somebody else's validation of the twelve rules, imported where it is asked for."""
    if by == "DQX":
        from benchmarks import rules_by_dqx

        return rules_by_dqx.Validation(spark)
    from benchmarks import rules_by_gx

    return rules_by_gx.Validation(spark, SUITE / "expectations" / "judged_orders" / "twelve.yml")


def _turn(subject: Engine | Hand, progress: Progress, request: dict[str, Any]) -> dict[str, Any]:
    jobs = Jobs(subject.spark)
    progress.batches.clear()
    progress.hear(subject.spark)
    started = time.monotonic()
    subject.run(request["job"], Path(request["home"]), request.get("env", "local"), jobs)
    whole = time.monotonic() - started
    return {"whole": whole, "batches": progress.wait(len(jobs.counts)), "jobs": jobs.counts}


def main() -> None:
    subject = sys.argv[1]
    serve(Engine() if subject == "engine" else Hand(tuned=subject == "tuned"))


if __name__ == "__main__":
    main()
