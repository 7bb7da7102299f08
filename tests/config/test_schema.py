"""The JSON Schema of conf: what a run takes passes it, and what a run refuses for its form does not."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from microbatch import strictyaml
from microbatch.cli import group
from microbatch.config.kinds import KINDS
from microbatch.config.schema import schema_of

HERE = Path(__file__).resolve().parents[2]
SOURCE = {"kind": "files", "format": "json", "path": "${landing}/orders"}


def errors(schema: dict, data: object) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(data)]


@pytest.mark.parametrize("overlay", [False, True])
@pytest.mark.parametrize("of", ["job", "environment", None])
def test_each_schema_is_a_schema(of, overlay):
    jsonschema.Draft202012Validator.check_schema(schema_of(of, overlay))


@pytest.mark.parametrize("file", sorted(HERE.glob("conf/*/*.yml")), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_this_suite_s_own_conf_passes_by_its_own_schema_and_by_that_of_either_file(file):
    of = "environment" if file.stem == "environment" else "job"
    overlay = file.parent.name != "base"
    data = strictyaml.load(file).data
    assert errors(schema_of(of, overlay), data) == []
    assert errors(schema_of(None, overlay), data) == []


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"onwer": "me"}, "onwer"),
        ({"sources": {"orders": {**SOURCE, "pth": "x"}}}, "pth"),
        ({"sources": {"orders": {"format": "json", "path": "x"}}}, "kind"),
        ({"sources": {"orders": {"kind": "flies"}}}, "flies"),
        ({"sources": {"orders": {"kind": "files", "format": "json"}}}, "path"),
        ({"sources": {"orders": {**SOURCE, "format": "jsn"}}}, "jsn"),
        ({"sources": {"orders": {**SOURCE, "max_files_per_batch": 0}}}, "0"),
        ({"sources": {"Orders": SOURCE}}, "Orders"),
        ({"schedule": {"timezone": "UTC"}}, "cron"),
        ({"schedule": {"cron": "0 2 * * *", "tasks": "each"}}, "each"),
        ({"alerts": [{"when": "sold > 3"}]}, "sold"),
        ({"retry": {"attempts": "three"}}, "three"),
    ],
)
def test_a_wrong_key_or_value_of_a_job_is_found(data, told):
    for schema in (schema_of("job"), schema_of()):
        found = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(data))
        assert told in found.message


@pytest.mark.parametrize(
    "data",
    [
        {"storage": {"landing": 3}},
        {"connections": {"shop": {"url2": "x"}}},
        {"channels": {"ops": {}}},
        {"metrics": {"port": 0}},
    ],
)
def test_a_wrong_key_or_value_of_an_environment_is_found(data):
    assert errors(schema_of("environment"), data)
    assert errors(schema_of(), data)


def test_numbers_and_switches_may_be_references_to_the_environment():
    data = {
        "sources": {"orders": {**SOURCE, "max_files_per_batch": "${env:FILES:-31}", "metadata": "${env:META:-true}"}},
        "retry": {"attempts": "${env:ATTEMPTS}"},
        "alerts": [{"when": "${env:WHEN:-failed > 0}"}],
    }
    assert errors(schema_of("job"), data) == []


def test_an_overlay_needs_no_key_and_knows_the_same_ones():
    assert errors(schema_of("job", overlay=True), {"sources": {"orders": {"path": "/srv/orders"}}}) == []
    assert errors(schema_of("job", overlay=True), {"schedule": {"retries": 5}}) == []
    assert errors(schema_of("job", overlay=True), {"sources": {"orders": {"pth": "/srv/orders"}}})
    assert errors(schema_of("job"), {"sources": {"orders": {"path": "/srv/orders"}}})


def test_every_kind_of_source_is_told_apart_by_its_kind():
    entry = schema_of("job")["$defs"]["JobConf"]["properties"]["sources"]["additionalProperties"]
    assert entry["properties"]["kind"]["enum"] == list(KINDS)
    for branch, (kind, model) in zip(entry["allOf"], KINDS.items(), strict=True):
        assert branch["if"]["properties"]["kind"] == {"const": kind}
        assert branch["then"]["$ref"] == f"#/$defs/{model.__name__}"
        assert set(schema_of("job")["$defs"][model.__name__]["properties"]) == set(model.model_fields)


@pytest.mark.parametrize(
    "source",
    [
        {
            "kind": "kafka",
            "servers": ["a:9092"],
            "topic": "orders",
            "format": "debezium",
            "options": {"fetch.min.bytes": 1},
        },
        {"kind": "kafka", "connection": "bus", "topic": "orders", "format": "json", "max_rows_per_batch": 50000},
        {"kind": "postgres", "connection": "shop", "table": "public.orders", "cursor": "updated_at", "key": "id"},
        {
            "kind": "postgres",
            "connection": "shop",
            "table": "orders",
            "mode": "changes",
            "key": ["a", "b"],
            "slot": "s",
        },
        {
            "kind": "rest",
            "connection": "bank",
            "paginate": {"by": "page", "param": "n", "first": 0},
            "params": {"all": True},
        },
        {"kind": "rest", "url": "https://x.invalid", "auth": {"basic": ["me", "${env:PASSWORD}"]}, "rate_per_s": 0.5},
        {"kind": "delta", "path": "/srv/orders", "starting_version": 0},
    ],
    ids=lambda source: source["kind"],
)
def test_what_other_kinds_may_say_passes_and_a_key_of_another_kind_does_not(source):
    assert errors(schema_of("job"), {"sources": {"things": source}}) == []
    assert errors(schema_of("job"), {"sources": {"things": {**source, "max_bytes_per_batch": 1}}})


def test_an_editor_shows_what_the_records_say_of_a_key():
    told = schema_of("job")["$defs"]["Schedule"]["properties"]["sla_m"]["description"]
    assert told == "minutes from the start by which a run must be done; None: no promise."
    inherited = schema_of("job")["$defs"]["FilesConf"]["properties"]["mask"]["description"]
    assert inherited == "columns whose values are hidden in letters and pages."


def test_the_command_prints_a_schema_wherever_it_is_called(tmp_path):
    done = CliRunner().invoke(group, ["schema", "--file", "environment", "--suite", str(tmp_path)])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == schema_of("environment")
