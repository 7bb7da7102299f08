"""What OpenLineage's specification 2-0-2 asks of an event and of the facets that are sent, as JSON Schema.

Written from the published specification: which keys there must be, of which type, and which values are allowed.
"""

from __future__ import annotations

from typing import Any

URI = {"type": "string", "format": "uri"}
TEXT: dict[str, Any] = {"type": "string"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}


def mapping(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*required]}


def facet(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    base = {"_producer": URI, "_schemaURL": URI}
    known = {**mapping({**base, **properties}, "_producer", "_schemaURL", *required)}
    return {**known, "additionalProperties": False}


def facets(**known: Any) -> dict[str, Any]:
    return {"type": "object", "properties": known, "additionalProperties": False}


def items(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


NAMED = {"namespace": TEXT, "name": TEXT}
RUN = mapping({"runId": {"type": "string", "format": "uuid"}}, "runId")
PARENT = facet({"run": RUN, "job": mapping(NAMED, "namespace", "name")}, "run", "job")
ERROR = facet({"message": TEXT, "programmingLanguage": TEXT, "stackTrace": TEXT}, "message", "programmingLanguage")
ENGINE = facet({"version": TEXT, "name": TEXT, "openlineageAdapterVersion": TEXT}, "version")
TYPE = facet({"processingType": TEXT, "integration": TEXT, "jobType": TEXT}, "processingType", "integration")
SCHEMA = facet({"fields": items(mapping({"name": TEXT, "type": TEXT, "description": TEXT}, "name"))})
SYMLINKS = facet({"identifiers": items(mapping({**NAMED, "type": TEXT}, "namespace", "name", "type"))})
MADE = mapping(
    {"type": {"enum": ["DIRECT", "INDIRECT"]}, "subtype": TEXT, "description": TEXT, "masking": {"type": "boolean"}},
    "type",
)
INPUT = mapping({**NAMED, "field": TEXT, "transformations": items(MADE)}, "namespace", "name", "field")
LINEAGE = facet(
    {
        "fields": {"type": "object", "additionalProperties": mapping({"inputFields": items(INPUT)}, "inputFields")},
        "dataset": items(INPUT),
    },
    "fields",
)
ASSERTION = mapping(
    {"assertion": TEXT, "success": {"type": "boolean"}, "column": TEXT, "severity": TEXT, "name": TEXT, "actual": TEXT},
    "assertion",
    "success",
)
MEASURED = mapping({"nullCount": COUNT, "distinctCount": COUNT, "count": {"type": "number"}})
INPUT_FACETS = facets(
    dataQualityAssertions=facet({"assertions": items(ASSERTION)}, "assertions"),
    dataQualityMetrics=facet(
        {"rowCount": COUNT, "bytes": COUNT, "columnMetrics": {"type": "object", "additionalProperties": MEASURED}},
        "columnMetrics",
    ),
)
OUTPUT_FACETS = facets(outputStatistics=facet({"rowCount": COUNT, "size": COUNT, "fileCount": COUNT}))
DATASET_FACETS = facets(
    schema=SCHEMA, symlinks=SYMLINKS, columnLineage=LINEAGE, version=facet({"datasetVersion": TEXT}, "datasetVersion")
)
EVENT = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **mapping(
        {
            "eventTime": {"type": "string", "format": "date-time"},
            "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
            "producer": URI,
            "schemaURL": {"const": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"},
            "run": mapping(
                {**RUN["properties"], "facets": facets(parent=PARENT, errorMessage=ERROR, processing_engine=ENGINE)},
                "runId",
            ),
            "job": mapping(
                {**NAMED, "facets": facets(jobType=TYPE, documentation=facet({"description": TEXT}, "description"))},
                "namespace",
                "name",
            ),
            "inputs": items(
                mapping({**NAMED, "facets": DATASET_FACETS, "inputFacets": INPUT_FACETS}, "namespace", "name")
            ),
            "outputs": items(
                mapping({**NAMED, "facets": DATASET_FACETS, "outputFacets": OUTPUT_FACETS}, "namespace", "name")
            ),
        },
        "eventTime",
        "producer",
        "schemaURL",
        "run",
        "job",
    ),
}
