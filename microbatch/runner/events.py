"""A run as OpenLineage tells it: each flow is a job of its own, with the run of the whole job as its parent.

START when a flow has something to do, RUNNING after each batch, COMPLETE or FAIL at its end. A run that finds nothing to do
is no run, and sends nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from microbatch.config import FilesConf, LoadedJob, Suite
from microbatch.errors import redacted
from microbatch.job import Flow, Source, snapshots_of
from microbatch.observers.openlineage import PRODUCER, Emitter
from microbatch.outcome import Outcome, Result
from microbatch.sink.tables import Table

if TYPE_CHECKING:
    from openlineage.client import event_v2 as ol

    from microbatch.shape import Shape

SUBTYPES = {
    "as it is": "IDENTITY",
    "renamed": "IDENTITY",
    "computed": "TRANSFORMATION",
    "aggregated": "AGGREGATION",
}
SEVERITIES = {"critical": "error", "warning": "warn", "info": "info"}
Columns = Sequence[dict[str, Any]]
"""Rows of `ops.lineage`."""


class Events:
    """The events of the flows of one run.

    Args:
        emitter: where they go.
    """

    def __init__(self, suite: Suite, run_id: str, emitter: Emitter) -> None:
        self.suite, self.run_id, self._emitter = suite, run_id, emitter

    def job(self, job: LoadedJob, state: str, errors: Iterable[BaseException] = ()) -> None:
        """The run of a whole job begins or ends."""
        self._send(state, self._job(job.name, job.doc, "JOB"), self._run(job.name, None, [str(e) for e in errors]))

    def flow(
        self,
        job: LoadedJob,
        flow: Flow,
        state: str,
        shape: Shape | None,
        columns: Columns,
        outcomes: Sequence[Outcome] = (),
        error: BaseException | None = None,
    ) -> None:
        """One flow begins, has done a batch, or ends.

        Args:
            outcomes: what the statistics are of: one batch, or all of this run; none at the start.
        """
        doc = (flow.transform.__doc__ or "") if flow.transform else ""
        self._send(
            state,
            self._job(f"{job.name}.{flow.name}", doc, "FLOW"),
            self._run(f"{job.name}.{flow.name}", job.name, [str(error)] if error else []),
            [self._read(job, flow, shape, outcomes), *self._looked_up(flow)],
            [self._written(flow, shape, columns, job, outcomes)],
        )

    def _send(self, state: str, job: ol.Job, run: ol.Run, inputs: Any = (), outputs: Any = ()) -> None:
        from openlineage.client.event_v2 import RunEvent, RunState

        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event = RunEvent(
            eventTime=now,
            run=run,
            job=job,
            eventType=RunState(state),
            producer=PRODUCER,
            inputs=[*inputs],
            outputs=[*outputs],
        )
        self._emitter.emit(event)

    def _job(self, name: str, doc: str, kind: str) -> ol.Job:
        from openlineage.client.event_v2 import Job
        from openlineage.client.facet_v2 import documentation_job, job_type_job

        facets: dict[str, Any] = {
            "jobType": job_type_job.JobTypeJobFacet("BATCH", "MICROBATCH", kind, producer=PRODUCER)
        }
        if doc.strip():
            first = redacted(doc.strip().splitlines()[0], self.suite.secrets)
            facets["documentation"] = documentation_job.DocumentationJobFacet(first, producer=PRODUCER)
        return Job(self.namespace, name, facets=facets)

    @property
    def namespace(self) -> str:
        """Of the suite's jobs: the name of its folder, and the environment."""
        return f"microbatch://{self.suite.root.name}/{self.suite.env}"

    def _run(self, name: str, parent: str | None, errors: Sequence[str]) -> ol.Run:
        from openlineage.client.event_v2 import Run
        from openlineage.client.facet_v2 import error_message_run, parent_run, processing_engine_run

        facets: dict[str, Any] = {
            "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
                version("pyspark"), name="Spark", producer=PRODUCER
            )
        }
        if parent:
            of = parent_run.Run(self._id(parent)), parent_run.Job(self.namespace, parent)
            facets["parent"] = parent_run.ParentRunFacet(*of, producer=PRODUCER)
        if errors:
            text = redacted("; ".join(errors), self.suite.secrets)
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(text, "PYTHON", producer=PRODUCER)
        return Run(self._id(name), facets=facets)

    def _id(self, name: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.namespace}/{name}/{self.run_id}"))

    def _read(self, job: LoadedJob, flow: Flow, shape: Shape | None, outcomes: Sequence[Outcome]) -> ol.InputDataset:
        """The streamed input, with what its rows were held against."""
        from openlineage.client.event_v2 import InputDataset
        from openlineage.client.facet_v2 import data_quality_assertions_dataset as asserted
        from openlineage.client.facet_v2 import data_quality_metrics_input_dataset as measured

        facets = self._schema(shape.input) if shape else {}
        told: dict[str, Any] = {}
        columns = shape.input.fieldNames() if shape else []
        results = [result for outcome in outcomes for result in outcome.results]
        if outcomes:
            nulls = _nulls(results, columns)
            told["dataQualityMetrics"] = measured.DataQualityMetricsInputDatasetFacet(
                {name: measured.ColumnMetrics(nullCount=count) for name, count in nulls.items()},
                rowCount=sum(outcome.rows_read for outcome in outcomes),
                producer=PRODUCER,
            )
        if results:
            told["dataQualityAssertions"] = asserted.DataQualityAssertionsDatasetFacet(
                _assertions(results, columns), producer=PRODUCER
            )
        namespace, name = self._address(job, flow.reads)
        return InputDataset(namespace, name, facets={**facets, **self._symlink(flow.reads)}, inputFacets=told)

    def _looked_up(self, flow: Flow) -> list[ol.InputDataset]:
        from openlineage.client.event_v2 import InputDataset

        tables = [snapshot.table for snapshot in snapshots_of(flow).values()]
        return [InputDataset(*self._table(table), facets=self._symlink(table)) for table in tables]

    def _written(
        self, flow: Flow, shape: Shape | None, columns: Columns, job: LoadedJob, outcomes: Sequence[Outcome]
    ) -> ol.OutputDataset:
        from openlineage.client.event_v2 import OutputDataset
        from openlineage.client.facet_v2 import column_lineage_dataset, dataset_version_dataset
        from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

        table = flow.writes.table
        facets = {**(self._schema(shape.output) if shape else {}), **self._symlink(table)}
        fields = self._fields(job, flow, [row for row in columns if row["table"] == table])
        if fields:
            facets["columnLineage"] = column_lineage_dataset.ColumnLineageDatasetFacet(fields, producer=PRODUCER)
        version = next((o.target_version for o in reversed(outcomes) if o.target_version is not None), None)
        if version is not None:
            facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(str(version), producer=PRODUCER)
        told: dict[str, Any] = {}
        if outcomes:
            count = sum(outcome.rows_written for outcome in outcomes)
            told["outputStatistics"] = statistics.OutputStatisticsOutputDatasetFacet(rowCount=count, producer=PRODUCER)
        return OutputDataset(*self._table(table), facets=facets, outputFacets=told)

    def _fields(self, job: LoadedJob, flow: Flow, columns: Columns) -> dict[str, Any]:
        from openlineage.client.facet_v2 import column_lineage_dataset as lineage

        found = {}
        for row in columns:
            made = lineage.Transformation("DIRECT", SUBTYPES.get(row["how"]), row["how"], masking=False)
            inputs = []
            for each in row["inputs"]:
                of, _, column = each.rpartition(".")
                source = flow.reads if isinstance(flow.reads, Source) and flow.reads.name == of else of
                inputs.append(lineage.InputField(*self._address(job, source), column, [made]))
            if inputs:
                found[row["column"]] = lineage.Fields(inputs)
        return found

    def _schema(self, schema: Any) -> dict[str, Any]:
        from openlineage.client.facet_v2 import schema_dataset

        fields = [schema_dataset.SchemaDatasetFacetFields(f.name, f.dataType.simpleString()) for f in schema]
        return {"schema": schema_dataset.SchemaDatasetFacet(fields, producer=PRODUCER)}

    def _symlink(self, read: Source | str) -> dict[str, Any]:
        """The name people know a dataset by, beside the place that tells it from all others."""
        from openlineage.client.facet_v2 import symlinks_dataset

        name, kind = (read.name, "SOURCE") if isinstance(read, Source) else (read, "TABLE")
        known = symlinks_dataset.Identifier(self.namespace, name, kind)
        return {"symlinks": symlinks_dataset.SymlinksDatasetFacet([known], producer=PRODUCER)}

    def _address(self, job: LoadedJob, read: Source | str) -> tuple[str, str]:
        """Namespace and name of what is read, as OpenLineage's naming has it; no connection's own value in either."""
        if isinstance(read, str):
            return self._table(read)
        conf = job.conf.sources[read.name]
        if isinstance(conf, FilesConf):
            return _place(redacted(conf.path, self.suite.secrets))
        connection = getattr(conf, "connection", None) or self.suite.root.name
        return f"{conf.kind}://{connection}", redacted(conf.place(self.suite.root), self.suite.secrets)

    def _table(self, table: str) -> tuple[str, str]:
        path = Table(self.suite.environment.storage["warehouse"], table).path
        return _place(redacted(path, self.suite.secrets))


def _place(path: str) -> tuple[str, str]:
    """`file` and the path, or `s3://bucket` and what is in it.

    Source:
        OpenLineage's page "Naming Conventions".
    """
    parts = urlsplit(path)
    if parts.scheme in ("", "file"):
        return "file", parts.path
    return f"{parts.scheme.replace('s3a', 's3')}://{parts.netloc}", parts.path.strip("/") or "/"


def _nulls(results: Sequence[Result], columns: Sequence[str]) -> dict[str, int]:
    """How many nulls the columns had that were not to have any."""
    found: dict[str, int] = {}
    for result in results:
        if result.expectation == "expect_column_values_to_not_be_null" and result.column in columns:
            found[result.column] = found.get(result.column, 0) + (result.unexpected or 0)
    return found


def _assertions(results: Sequence[Result], columns: Sequence[str]) -> list[Any]:
    """One assertion an expectation, over all of these batches."""
    from openlineage.client.facet_v2 import data_quality_assertions_dataset as asserted

    by_id: dict[str, list[Result]] = {}
    for result in results:
        by_id.setdefault(result.expectation_id, []).append(result)
    found = []
    for id_, mine in by_id.items():
        first = mine[0]
        broke = None if first.unexpected is None else sum(each.unexpected or 0 for each in mine)
        found.append(
            asserted.Assertion(
                assertion=first.expectation,
                success=all(each.success for each in mine),
                column=first.column if first.column in columns else None,
                severity=SEVERITIES[first.severity],
                name=id_,
                description=f"on {first.column}" if first.column else "on the whole batch",
                actual=first.observed if broke is None else f"{broke} rows broke it",
            )
        )
    return found
