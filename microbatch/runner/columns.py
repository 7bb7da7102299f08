"""The lineage of a job's columns, kept in `ops.lineage`: traced once a version of the suite, by a run that has Spark anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from microbatch.config import LoadedJob, Suite
from microbatch.job import Flow, snapshots_of
from microbatch.sink import ops
from microbatch.sink.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from microbatch.lineage import Traced
    from microbatch.shape import Shape


def known(suite: Suite, job: LoadedJob) -> list[dict[str, Any]]:
    """A row a column of each target: table, column, type, flow, how, inputs and sources (each `input.column`)."""
    return ops.rows(suite.environment.storage["warehouse"], "lineage", [("job", "=", job.name)])


def keep(
    spark: SparkSession, suite: Suite, job: LoadedJob, shapes: Mapping[tuple[str, str], Shape]
) -> list[dict[str, Any]]:
    """The lineage as of this version of the suite; traced over empty frames, with no Spark job, where it is not kept yet."""
    import pyarrow as pa

    rows = known(suite, job)
    if rows and {row["suite_version"] for row in rows} == {suite.version}:
        return rows
    rows = [
        {
            "job": job.name,
            **{name: getattr(each, name) for name in ("table", "column", "type", "flow", "how")},
            "inputs": [".".join(column) for column in each.inputs],
            "sources": [".".join(column) for column in each.sources],
            "suite_version": suite.version,
        }
        for each in traced(spark, suite, job, job.flows, shapes)
    ]
    warehouse = suite.environment.storage["warehouse"]
    data = pa.Table.from_pylist(rows, schema=ops.schema("lineage"))
    ops.write(Table(warehouse, "ops.lineage"), data, predicate=f"job = '{job.name}'")
    return rows


def traced(
    spark: SparkSession,
    suite: Suite,
    job: LoadedJob,
    flows: Sequence[Flow],
    shapes: Mapping[tuple[str, str], Shape],
) -> list[Traced]:
    """The columns of the targets of some flows of a job, followed over empty frames.

    Args:
        flows: in the order their tables require.
    """
    from microbatch.lineage import trace

    tables = {suite.jobs[name].flow(flow).writes.table: shape.output for (name, flow), shape in shapes.items()}
    for flow in flows:
        for snapshot in snapshots_of(flow).values():
            if snapshot.table not in tables:  # a table of a job that is not in this run
                path = Table(suite.environment.storage["warehouse"], snapshot.table).path
                tables[snapshot.table] = spark.read.format("delta").load(path).schema
    shaped = [shapes[job.name, flow.name] for flow in flows]
    return trace(spark, [(flow, shape.input, shape.output) for flow, shape in zip(flows, shaped, strict=True)], tables)
