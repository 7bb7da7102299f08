"""The session and the shape of every flow, with what takes long by itself done beside what takes long in Java."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from microbatch import session
from microbatch.config import Suite
from microbatch.job import Source, never_null

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from microbatch.shape import Shape

    Shapes = dict[tuple[str, str], Shape]


def start(
    suite: Suite, jobs: tuple[str, ...], conf: Mapping[str, str], *, little: bool = False, to_run: bool = False
) -> tuple[SparkSession, Shapes]:
    """The session for these jobs, and the shapes of their flows.

    Great Expectations, or else pandas, is imported while Java starts; the Python processes of a source that has such start while
    shapes are made and the first query starts.

    Args:
        conf: settings of Spark.
        little: see `session.start`.
        to_run: sources will be read, too.

    Raises:
        ConfigError: with every mistake in the flows; or Java, the jars or a setting is missing.
    """
    flows = [(suite.job(name), flow) for name in jobs for flow in suite.job(name).flows]
    from microbatch import checks

    checked = any(checks.needed(job.expectations.get(flow.name), never_null(flow)) for job, flow in flows)
    with _beside(checks.warm if checked else _arrow):
        spark = session.start(f"microbatch {' '.join(jobs)}", conf, little=little)
    kinds = {job.conf.sources[flow.reads.name].in_python for job, flow in flows if isinstance(flow.reads, Source)}
    if to_run and True in kinds:
        threading.Thread(target=_warm, args=(spark,), daemon=True).start()  # nobody waits for it
    from microbatch.shape import shapes

    return spark, shapes(spark, suite, jobs)


def _arrow() -> None:
    import pyarrow

    pyarrow.array(
        []
    )  # the first one imports pandas, as Great Expectations does: 0.3 s that the first ledger row would wait


def _warm(spark: SparkSession) -> None:
    from microbatch.sources.postgres import datasource

    with suppress(Exception):  # what is wrong here is wrong for the source itself, whose query says it
        datasource.warm(spark)


@contextmanager
def _beside(work: Callable[[], None]) -> Iterator[None]:
    """Let a thread do something while the block runs, and wait for it."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    thread.join()
