"""JSON Schema of the files of conf, made from the same records that a run checks them with, so that an editor knows the keys.

A schema is a little wider than the check: what only a look at the whole suite finds (a channel that no environment has, a
source that nobody reads) is found by `plan`. Every number and switch may also be a reference such as `${env:PAUSE_S}`.

Source:
    JSON Schema, draft 2020-12. The editors' YAML language server reads it from the comment
    `# yaml-language-server: $schema=PATH` in the first line of a file.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from microbatch.config.kinds import KINDS
from microbatch.config.models import METRICS, Environment, JobConf
from microbatch.config.names import NAME

ConfFile = Literal["job", "environment"]
CONF_FILES: tuple[ConfFile, ...] = get_args(ConfFile)
DIALECT = "https://json-schema.org/draft/2020-12/schema"

_RECORDS: dict[ConfFile, type[BaseModel]] = {"job": JobConf, "environment": Environment}
_REFERENCE = {"type": "string", "pattern": r"\$\{.+\}", "description": "a reference: ${env:NAME}, ${env:NAME:-default}"}
_NAMED = {"pattern": f"^{NAME.pattern}$"}
_WHEN = rf"^\s*({'|'.join(METRICS)})\s*([<>]=?|==|!=)\s*-?[0-9.]+([eE][-+]?[0-9]+)?\s*$"
_ATTRIBUTE = re.compile(r" {4}(?P<names>\w+(?:, \w+)*): (?P<text>\S.*)")


def file_of(of: ConfFile) -> str:
    """The name under which a suite keeps a schema, in `conf/`: hidden, so that it is no part of the suite's version."""
    return f".{of}.schema.json"


def schema_of(of: ConfFile | None = None, overlay: bool = False) -> dict[str, Any]:
    """The schema of a file of conf.

    Args:
        of: a job's file or the environment's; None: either, told apart by its keys.
        overlay: of a file that lies over the one in `conf/base` and repeats only what differs: no key is needed.
    """

    class Generator(_Overlay if overlay else _Base):  # type: ignore[misc]  # one of two classes, by the argument
        pass

    models = [(model, "validation") for model in (*_RECORDS.values(), *KINDS.values())]
    _, found = models_json_schema(models, schema_generator=Generator)  # type: ignore[arg-type]
    definitions = found["$defs"]
    definitions["JobConf"]["properties"]["sources"].update(_sources(overlay))
    _amend(definitions)
    either = _either(definitions) if of is None else {"$ref": f"#/$defs/{_RECORDS[of].__name__}"}
    title = {"job": "conf/<env>/<job>.yml", "environment": "conf/<env>/environment.yml", None: "a file of conf"}[of]
    schema = {"$schema": DIALECT, "title": f"microbatch: {title}", **either}
    return schema | {"$defs": {name: definitions[name] for name in sorted(_used(either, definitions))}}


class _Base(GenerateJsonSchema):
    """References beside numbers and switches; the attributes of a docstring as the descriptions of its keys."""

    def int_schema(self, schema: core_schema.IntSchema) -> dict[str, Any]:
        return _or_reference(super().int_schema(schema))

    def float_schema(self, schema: core_schema.FloatSchema) -> dict[str, Any]:
        return _or_reference(super().float_schema(schema))

    def bool_schema(self, schema: core_schema.BoolSchema) -> dict[str, Any]:
        return _or_reference(super().bool_schema(schema))

    def literal_schema(self, schema: core_schema.LiteralSchema) -> dict[str, Any]:
        found = super().literal_schema(schema)
        return found if "const" in found else _or_reference(found)  # of a single value, `kind`, others hang

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        found = super().model_schema(schema)
        told = _attributes(schema["cls"])
        found["description"] = inspect.cleandoc(schema["cls"].__doc__ or "").split("\n\n")[0].replace("\n", " ")
        for name, of_key in found.get("properties", {}).items():
            of_key.pop("title", None)
            if name in told:
                of_key["description"] = told[name]
        return found


class _Overlay(_Base):
    """The same, with no key needed."""

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        found = super().model_schema(schema)
        found.pop("required", None)
        return found


def _or_reference(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, _REFERENCE]}


def _attributes(model: type[BaseModel]) -> dict[str, str]:
    """What the docstrings of a record and of those it is made from say of each key."""
    told: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        names: list[str] = []
        _, _, attributes = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
        for line in attributes.splitlines():
            if found := _ATTRIBUTE.fullmatch(line):
                names = found["names"].split(", ")
                told |= dict.fromkeys(names, found["text"])
            elif line.startswith(" " * 8):
                told |= {name: f"{told[name]} {line.strip()}" for name in names}
            else:
                names = []
    return told


def _sources(overlay: bool) -> dict[str, Any]:
    """Of the mapping `sources`: which keys an entry has hangs on its `kind`."""
    by_kind = [
        {
            "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
            "then": {"$ref": f"#/$defs/{model.__name__}"},
        }
        for kind, model in KINDS.items()
    ]
    entry: dict[str, Any] = {
        "type": "object",
        "properties": {"kind": {"enum": list(KINDS), "description": "what is read"}},
        "allOf": by_kind,
    }
    if overlay:
        any_kind = {"anyOf": [{"$ref": f"#/$defs/{model.__name__}"} for model in KINDS.values()]}
        entry["allOf"] = [*by_kind, {"if": {"not": {"required": ["kind"]}}, "then": any_kind}]
    else:
        entry["required"] = ["kind"]
    return {"type": ["object", "null"], "propertyNames": _NAMED, "additionalProperties": entry}


def _amend(definitions: dict[str, Any]) -> None:
    """What the records leave to code: the form of `when`, roots that need not be written, a key with nothing behind it."""
    environment = definitions["Environment"]
    environment.pop("required", None)
    environment["properties"] = {
        name: {"anyOf": [schema, {"type": "null"}], "description": schema.get("description", "")}
        for name, schema in environment["properties"].items()
    }
    when = definitions["Alert"]["properties"]["when"]
    definitions["Alert"]["properties"]["when"] = {
        "anyOf": [{**when, "pattern": _WHEN}, _REFERENCE],
        "description": '<metric> <op> <number>, such as "freshness_h > 26"',
    }


def _either(definitions: dict[str, Any]) -> dict[str, Any]:
    keys = definitions["Environment"]["properties"]
    return {
        "if": {"anyOf": [{"required": [key]} for key in keys]},
        "then": {"$ref": "#/$defs/Environment"},
        "else": {"$ref": "#/$defs/JobConf"},
    }


def _used(schema: Any, definitions: dict[str, Any]) -> set[str]:
    """The names of the definitions that a schema rests on, directly or through others."""
    used: set[str] = set()
    waiting = list(_references(schema))
    while waiting:
        name = waiting.pop()
        if name not in used:
            used.add(name)
            waiting += _references(definitions[name])
    return used


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].rpartition("/")[2]
        for child in schema.values():
            yield from _references(child)
    elif isinstance(schema, list):
        for child in schema:
            yield from _references(child)
