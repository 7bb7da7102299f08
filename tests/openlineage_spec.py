"""Holds OpenLineage's events against its own JSON Schemas, which lie in `tests/openlineage`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
from referencing import Registry, Resource

SCHEMAS = [json.loads(file.read_text()) for file in sorted((Path(__file__).parent / "openlineage").glob("*.json"))]
BY_URL = {schema["$id"]: schema for schema in SCHEMAS}
REGISTRY: Any = Registry().with_resources([(url, Resource.from_contents(schema)) for url, schema in BY_URL.items()])


def validate(event: Any) -> None:
    """An event is as its `schemaURL` says, and each facet in it as its own, under the name that the specification gives it."""
    _valid(event, event["schemaURL"])
    for name, facet in facets(event):
        url = facet["_schemaURL"]
        _valid(facet, url)
        assert name in BY_URL[url.partition("#")[0]]["properties"], f"{name} is no name of a {url}"


def facets(thing: Any) -> Iterator[tuple[str, Any]]:
    """Every facet in an event, with its name."""
    if isinstance(thing, list):
        for each in thing:
            yield from facets(each)
    elif isinstance(thing, dict):
        for name, each in thing.items():
            if isinstance(each, dict) and "_schemaURL" in each:
                yield name, each
            yield from facets(each)


def _valid(thing: Any, url: str) -> None:
    """Raise where a thing is not as the schema says; a schema that does not lie here is an error, and nothing is fetched."""
    checker = jsonschema.FormatChecker()
    jsonschema.Draft202012Validator({"$ref": url}, registry=REGISTRY, format_checker=checker).validate(thing)
