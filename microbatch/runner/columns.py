"""The lineage of a job's columns, kept in `ops.lineage`: traced once a version of the suite, by a run that has Spark anyway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from microbatch.config import LoadedJob, Suite
from microbatch.job import snapshots_of
from microbatch.sink import ops
from microbatch.sink.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from microbatch.shape import Shape


def known(suite: Suite, job: LoadedJob) -> list[dict[str, Any]]:
    """A row a column of each target: table, column, type, flow, how, inputs and sources (each `input.column`)."""
    return ops.rows(suite.environment.storage["warehouse"], "lineage", [("job", "=", job.name)])


def keep(
    spark: SparkSession, suite: Suite, job: LoadedJob, shapes: Mapping[tuple[str, str], Shape]
) -> list[dict[str, Any]]:
    """The lineage as of this version of the suite; traced over empty frames, with no Spark job, where it is not kept yet."""
    import pyarrow as pa

    from microbatch.lineage import trace

    rows = known(suite, job)
    if rows and {row["suite_version"] for row in rows} == {suite.version}:
        return rows
    warehouse = suite.environment.storage["warehouse"]
    tables = {suite.jobs[name].flow(flow).writes.table: shape.output for (name, flow), shape in shapes.items()}
    for flow in job.flows:
        for snapshot in snapshots_of(flow).values():
            if snapshot.table not in tables:  # a table of a job that is not in this run
                tables[snapshot.table] = spark.read.format("delta").load(Table(warehouse, snapshot.table).path).schema
    flows = [(flow, shapes[job.name, flow.name].input, shapes[job.name, flow.name].output) for flow in job.flows]
    rows = [
        {
            "job": job.name,
            **{name: getattr(each, name) for name in ("table", "column", "type", "flow", "how")},
            "inputs": [".".join(column) for column in each.inputs],
            "sources": [".".join(column) for column in each.sources],
            "suite_version": suite.version,
        }
        for each in trace(spark, flows, tables)
    ]
    data = pa.Table.from_pylist(rows, schema=ops.schema("lineage"))
    ops.write(Table(warehouse, "ops.lineage"), data, predicate=f"job = '{job.name}'")
    return rows
