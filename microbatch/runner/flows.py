"""One flow as one streaming query: start it, carry its batches through the wall, end it between batches."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from microbatch.config import LoadedJob, Suite
from microbatch.job import Append, Flow
from microbatch.outcome import Outcome
from microbatch.retry import classify
from microbatch.runner.inputs import checkpoint_of
from microbatch.sources import Files, Stream, TableInput

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from microbatch.shape import Shape
    from microbatch.work import Work

CHANGES = {"delta.enableChangeDataFeed": "true"}
LOG = {
    "delta.checkpointInterval": "50"
}  # every tenth commit would take three times as long; a log of 50 is read in 0.1 s
POLL_S = 0.2  # how often a stop that was asked for is looked at


class Stopping(Exception):
    """Somebody asked the run to end: the batch that would begin now does not."""


def properties_of(suite: Suite, flow: Flow) -> dict[str, str]:
    """Properties of the flow's target, set when the table is made."""
    readers = suite.readers_of(flow.writes.table)
    streamed = any(reader.reads == flow.writes.table for _, reader in readers)
    needs_changes = streamed and (
        not isinstance(flow.writes, Append) or any(reader.recompute_by for _, reader in readers)
    )
    return {**(CHANGES if needs_changes else {}), **LOG}


def work_of(
    suite: Suite,
    job: LoadedJob,
    flow: Flow,
    shape: Shape,
    input_: Files | TableInput | Stream,
    run_id: str,
    query_id: str,
) -> Work:
    """All that a batch of a flow needs, as if none had been tried before; replays and backfills are batches too."""
    from microbatch.work import Work

    return Work(
        warehouse=suite.environment.storage["warehouse"],
        job=job.name,
        flow=flow,
        shape=shape,
        input=input_,
        checkpoint=checkpoint_of(suite, job, flow),
        query_id=query_id,
        run_id=run_id,
        suite_version=suite.version,
        committed=-1,
        planned=-1,
        properties=properties_of(suite, flow),
        mask=job.mask,
        reached=lambda step, batch_id: None,
    )


def stream(
    spark: SparkSession,
    work: Work,
    process: Callable[[Work, DataFrame, int], Outcome],
    stopping: threading.Event,
    done: Callable[[Outcome], None],
) -> list[Outcome]:
    """Take in all that is pending for one flow.

    An exception that leaves a Python foreachBatch reaches Spark as text, and a long one ends in a stack overflow there;
    SystemExit inside hangs the query for ever. So everything is caught at this wall, the object is kept, a short word goes
    to Spark, and the kept one is raised when the query has ended.

    Raises:
        MicrobatchError: what stopped the flow.
    """
    outcomes: list[Outcome] = []
    kept: list[BaseException] = []
    callbacks = _Callbacks(spark)

    def wall(batch: DataFrame, batch_id: int) -> None:
        try:
            callbacks.seen()
            if stopping.is_set():
                raise Stopping
            query_id = batch.sparkSession.sparkContext.getLocalProperty("sql.streaming.queryId")
            outcome = process(replace(work, query_id=str(query_id)), batch, batch_id)
            outcomes.append(outcome)
            done(outcome)
            work.reached("commit", batch_id)
        except BaseException as cause:  # the wall: nothing may pass it but a word
            kept.append(classify(cause, work.flow.name, batch_id) if not isinstance(cause, Stopping) else cause)
            if kept[-1] is not cause:
                kept[-1].__cause__ = cause
            raise RuntimeError("stopped by the engine") from None

    try:
        query = (
            work.input.stream(spark)
            .writeStream.foreachBatch(wall)
            .queryName(f"{work.job}.{work.flow.name}")
            .option("checkpointLocation", str(work.checkpoint))
            .trigger(availableNow=True)
            .start()
        )
        while not query.awaitTermination(POLL_S):  # type: ignore[arg-type]  # a fraction of a second works
            pass
    except Exception as cause:
        if not kept:
            batch_id = outcomes[-1].batch_id + 1 if outcomes else max(work.planned, 0)
            raise classify(cause, work.flow.name, batch_id) from cause
    finally:
        callbacks.close()
    if kept and not isinstance(kept[0], Stopping):
        raise kept[0]
    return outcomes


class _Callbacks:
    """The connection over which a query calls Python: Py4J keeps it, and a thread that waits at it, when the query has ended.

    Source:
        py4j 0.10.9, `ClientServer`: a connection for each of Java's threads, closed when Java's garbage collector finds it.
    """

    def __init__(self, spark: SparkSession) -> None:
        gateway: Any = spark.sparkContext._gateway
        pinned = hasattr(gateway._gateway_client, "get_thread_connection")  # not so with PYSPARK_PIN_THREAD=false
        self._client: Any = gateway.java_gateway_server.getCallbackClient() if pinned else None
        self._connection: Any = None

    def seen(self) -> None:
        """Remember the connection; called out of a batch, in whose thread it is the one that is used."""
        if self._connection is None and self._client is not None:
            self._connection = self._client.getPerThreadConnection()

    def close(self) -> None:
        """Close it, once nobody calls any more."""
        if self._connection is not None:
            self._client.connectionStopped(self._connection)
            self._connection.shutdown()
