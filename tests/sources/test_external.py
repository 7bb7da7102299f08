"""Delta tables that something else writes: what is added comes once, anything else that happens to them is loud."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from microbatch.commands import audit, preview
from microbatch.config import load
from microbatch.errors import ConfigError, SourceUnavailable, StateChanged
from microbatch.testing import STEPS, Bench

pytestmark = pytest.mark.slow  # whole runs

JOB = '''
"""Events that another team keeps."""

from microbatch import Append, Flow, Job, Source

EVENTS = Source("events", schema="{schema}")

JOB = Job(Flow("take", reads=EVENTS, writes=Append("bronze.events")))
'''
CONF = """
sources:
  events: {{kind: delta, {place}, {more}}}
retry: {{attempts: 0}}
"""


class Events:
    """A table that the test writes, and a job that appends it to `bronze.events`."""

    def __init__(self, bench: Bench, place: str = 'path: "${landing}/events"', **conf: Any) -> None:
        self.bench = bench
        self.path = str(Path(bench.storage["landing"]) / "events")
        self.declare(place=place, **conf)

    def declare(self, schema: str = "id BIGINT, name STRING", more: str = "", place: str = 'path: "${landing}/events"'):
        self.bench.write("jobs/events.py", JOB.format(schema=schema))
        self.bench.write("conf/base/events.yml", CONF.format(place=place, more=more))

    def add(self, *ids: int, **more: Any) -> None:
        data = {
            "id": ids,
            "name": [f"n{each}" for each in ids],
            **{name: [each] * len(ids) for name, each in more.items()},
        }
        write_deltalake(self.path, pa.table(data), mode="append", schema_mode="merge")

    def table(self) -> DeltaTable:
        return DeltaTable(self.path)

    def run(self) -> list[Any]:
        return self.bench.run("events")

    def ids(self) -> list[int]:
        return sorted(row.id for row in self.bench.read("bronze.events").collect())

    def audit(self) -> int:
        suite = self.bench.suite()
        return audit.execute(suite, suite.job("events"))


@pytest.fixture
def events(bench: Bench) -> Callable[..., Events]:
    return lambda **conf: Events(bench, **conf)


def test_what_is_added_comes_once_and_what_only_moves_rows_is_nothing_to_do(events):
    job = events(more="metadata: true")
    job.add(1, 2)
    job.add(3)
    job.run()
    job.add(4)
    job.run()
    assert job.ids() == [1, 2, 3, 4]
    assert all(row._file.endswith(".parquet") for row in job.bench.read("bronze.events").collect())
    job.table().optimize.compact()
    assert [flow.state for flow in job.bench.report("events").flows] == ["idle"]
    job.add(5)
    job.run()
    assert job.ids() == [1, 2, 3, 4, 5]
    assert job.audit() == 0


def test_conf_says_where_to_begin_and_how_many_files_are_a_batch(events):
    job = events(more="starting_version: 1, max_files_per_batch: 1")
    for number in range(4):
        job.add(number)
    assert [outcome.rows_read for outcome in job.run()] == [1, 1, 1]
    assert job.ids() == [1, 2, 3]


def test_a_table_may_be_named_where_it_lies_in_the_warehouse_and_no_flow_of_the_suite_writes_it(events):
    job = events(place="table: other.events")
    job.path = str(Path(job.bench.storage["warehouse"]) / "other" / "events")
    job.add(1)
    job.run()
    assert job.ids() == [1]
    job.declare(place="table: bronze.events")
    with pytest.raises(ConfigError, match="flow take of this suite writes bronze.events; read it by its name"):
        job.run()


@pytest.mark.parametrize("step", STEPS[1:])
def test_a_batch_that_is_run_again_reads_the_same_rows(events, step):
    job = events()
    job.add(1, 2)
    job.bench.crash("events", before=step)
    job.add(3)
    job.run()
    assert job.ids() == [1, 2, 3]
    assert job.audit() == 0


def deleted(job: Events) -> None:
    job.table().delete("id = 1")


def updated(job: Events) -> None:
    job.table().update({"name": "'x'"}, predicate="id = 1")


def overwritten(job: Events) -> None:
    write_deltalake(job.path, pa.table({"id": [9], "name": ["x"]}), mode="overwrite")


def made_anew(job: Events) -> None:
    shutil.rmtree(job.path)
    for number in range(5):
        job.add(number)


def gone(job: Events) -> None:
    shutil.rmtree(job.path)


def put_back(job: Events) -> None:
    (Path(job.path) / "_delta_log" / f"{job.table().version():020d}.json").unlink()


def vacuumed(job: Events) -> None:
    job.add(7)
    job.add(8)
    job.table().optimize.compact()
    job.table().vacuum(0, dry_run=False, enforce_retention_duration=False)


def log_gap(job: Events) -> None:
    job.add(7)
    version = job.table().version()
    job.add(8)
    job.table().create_checkpoint()
    (Path(job.path) / "_delta_log" / f"{version:020d}.json").unlink()


@pytest.mark.parametrize(
    ("happens", "told"),
    [
        (deleted, r"had rows changed or deleted by version 2 \(DELETE\)"),
        (updated, r"had rows changed or deleted by version 2 \(UPDATE\)"),
        (overwritten, r"had rows changed or deleted by version 2 \(WRITE\)"),
        (made_anew, "was made anew since it was read"),
        (gone, "is gone"),
        (put_back, "is at version 0, and version 1 was read already"),
        (vacuumed, r"lost part-\S+ of version 2 before it was read; was it vacuumed\?"),
        (log_gap, "has no log of version 2 any more, which was not read yet"),
    ],
)
def test_what_is_no_addition_stops_the_flow_before_spark_and_leaves_everything_as_it_is(events, happens, told: str):
    job = events()
    job.add(1, 2)
    job.add(3)
    job.run()
    happens(job)
    ids = job.ids()
    with pytest.raises(StateChanged, match=told) as stopped:
        job.run()
    assert stopped.value.exit_code == 1
    assert "--accept checkpoint" in str(stopped.value)
    assert job.ids() == ids


def test_where_nobody_looked_first_spark_stops_at_what_was_taken_away(events, spark):
    """The look before a run and the read are not one moment; the second is as loud as the first."""
    job = events()
    job.add(1, 2)
    job.run()
    job.add(3)
    from microbatch.runner import run

    def reached(step: str, batch_id: int) -> None:
        if step == "keep":
            for file in Path(job.path).glob("*.parquet"):
                file.unlink()

    report = run(job.bench.suite(), ["events"], reached=reached)
    assert report.exit_code == 1
    assert job.ids() == [1, 2]


def test_a_table_that_is_not_there_is_an_unavailable_source(events):
    job = events()
    report = job.bench.report("events")
    assert (report.exit_code, type(report.errors[0])) == (5, SourceUnavailable)


def test_a_new_column_does_what_unknown_fields_says(events):
    for says, names, letters in (("ignore", [], 0), ("rescue", ["_rescued"], 0), ("fail", [], 1)):
        job = events(more=f"unknown_fields: {says}")
        job.bench.storage = {name: f"{path}-{says}" for name, path in job.bench.storage.items()}
        job.path = str(Path(job.bench.storage["landing"]) / "events")
        job.add(1)
        job.run()
        job.add(2, more="m")
        job.run()
        job.add(3)
        job.run()
        rows = {row.id: row for row in job.bench.read("bronze.events").collect()}
        assert job.bench.quarantine("events").count() == letters
        assert sorted(rows) == ([1, 3] if letters else [1, 2, 3])
        if names:
            assert [rows[number]._rescued for number in (1, 2, 3)] == [None, '{"more":"m"}', None]


def test_a_batch_that_was_begun_before_a_column_came_is_run_again_after_it(events):
    job = events()
    job.add(1)
    job.run()
    job.add(2)
    job.bench.crash("events", before="target")
    job.add(3, more="m")
    job.run()
    assert job.ids() == [1, 2, 3]
    assert job.audit() == 0


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ("id BIGINT, name STRING, price DOUBLE", "it has no column price; there are id, name"),
        ("id INT, name STRING", "column id is bigint, the schema says int"),
        ("id STRING, name STRING", "column id is bigint, the schema says string"),
    ],
)
def test_a_schema_that_the_table_does_not_fit_is_a_mistake_before_a_batch_runs(events, schema: str, told: str):
    job = events(schema=schema)
    job.add(1)
    with pytest.raises(ConfigError, match=told):
        job.run()
    assert not (Path(job.bench.storage["warehouse"]) / "bronze").exists()


def test_a_type_that_was_changed_upstream_stops_the_flow(events):
    job = events()
    job.add(1)
    job.run()
    write_deltalake(job.path, pa.table({"id": ["x"], "name": ["n"]}), mode="overwrite", schema_mode="overwrite")
    report = job.bench.report("events")
    assert report.exit_code == 1
    assert "changed or deleted by version 1" in str(report.errors[0])


def test_a_wider_type_of_the_declaration_takes_every_value(events):
    job = events(schema="id DECIMAL(20,0), name STRING")
    job.add(2**53 + 1)
    job.run()
    assert [int(row.id) for row in job.bench.read("bronze.events").collect()] == [2**53 + 1]


def test_preview_shows_rows_and_a_letter_is_the_row_as_json(events, capsys: pytest.CaptureFixture[str]):
    job = events(more="unknown_fields: fail")
    job.add(4711)
    suite = job.bench.suite()
    preview.execute(suite, suite.job("events"), suite.job("events").flow("take"), 5)
    assert "4711" in capsys.readouterr().out
    job.add(2, more="m")
    job.run()
    payloads = sorted(letter.payload for letter in job.bench.quarantine("events").collect())
    assert json.loads(payloads[-1])["id"] in (2, 4711)


def test_conf_that_names_no_place_or_two_is_refused(events):
    job = events()
    for place in ("starting_version: 0", 'path: "${landing}/a", table: a.b'):
        job.declare(place=place)
        with pytest.raises(ConfigError, match="sources.events.path: or table is needed: one of the two"):
            load(job.bench.root)
