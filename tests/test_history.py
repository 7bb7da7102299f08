"""History: every version with the time it held, whatever order versions come in. Deletions are remembered."""

from __future__ import annotations

import itertools
import random

import pytest

from microbatch.sink import ops
from microbatch.testing import Bench

pytestmark = pytest.mark.slow  # whole runs of the engine, or processes of their own

JOB = '''
"""Customers."""

from microbatch import Flow, History, Job, Source, Upsert

SOURCE = Source("customers", schema="id BIGINT, city STRING, email STRING, at TIMESTAMP, gone BOOLEAN")
JOB = Job(
    Flow("history", reads=SOURCE,
         writes=History("silver.history", keys=["id"], newest_by="at", track=["city"], delete_when="gone")),
    Flow("latest", reads=SOURCE, writes=Upsert("silver.latest", keys=["id"], newest_by="at", delete_when="gone")),
)
'''
CONF = """
sources:
  customers: {kind: files, format: json, path: "${landing}/customers", max_files_per_batch: 1}
retry: {attempts: 0}
"""


@pytest.fixture
def customers(bench: Bench) -> Bench:
    bench.write("jobs/customers.py", JOB)
    bench.write("conf/base/customers.yml", CONF)
    return bench


def version(id_: int, city: str | None, minute: int, gone: bool = False, email: str = "e") -> dict[str, object]:
    return {"id": id_, "city": city, "email": email, "at": f"2024-01-01T00:{minute:02}:00Z", "gone": gone}


def intervals(bench: Bench) -> list[tuple[object, ...]]:
    rows = bench.read("silver.history").orderBy("id", "valid_from").collect()
    return [(r.id, r.city, r.valid_from.minute, r.valid_to.minute if r.valid_to else None, r.is_current) for r in rows]


def test_a_late_version_splits_the_interval_it_falls_into_and_a_delete_closes_it(customers: Bench):
    customers.land("customers", version(1, "Rome", 10), version(1, "Oslo", 30), version(2, "Bern", 5))
    customers.land("customers", version(1, "Bonn", 20), version(2, None, 9, gone=True))
    customers.run("customers")
    assert intervals(customers) == [
        (1, "Rome", 10, 20, False),
        (1, "Bonn", 20, 30, False),
        (1, "Oslo", 30, None, True),
        (2, "Bern", 5, 9, False),
    ]
    assert sorted((r.id, r.city) for r in customers.read("silver.latest").collect()) == [(1, "Oslo")]


def test_a_change_of_an_untracked_column_opens_no_version(customers: Bench):
    customers.land("customers", version(1, "Rome", 10, email="old"))
    customers.land("customers", version(1, "Rome", 20, email="new"))
    outcomes = customers.run("customers", flows=["history"])
    assert intervals(customers) == [(1, "Rome", 10, None, True)]
    assert [r.email for r in customers.read("silver.history").collect()] == ["new"]
    assert all(outcome.lawful() for outcome in outcomes)


def test_an_older_version_that_comes_after_its_deletion_does_not_bring_the_row_back(customers: Bench):
    customers.land("customers", version(1, "Rome", 10))
    customers.land("customers", version(1, None, 30, gone=True))
    customers.land("customers", version(1, "Bonn", 20), version(2, None, 7, gone=True))
    customers.land("customers", version(2, "Bern", 5))
    outcomes = customers.run("customers")
    assert customers.read("silver.latest").count() == 0
    assert sum(o.rows_superseded for o in outcomes if o.flow == "latest") == 3
    assert intervals(customers) == [(1, "Rome", 10, 20, False), (1, "Bonn", 20, 30, False), (2, "Bern", 5, 7, False)]
    customers.land("customers", version(1, "Wien", 40))
    customers.run("customers")
    assert [(r.id, r.city) for r in customers.read("silver.latest").collect()] == [(1, "Wien")]
    assert intervals(customers)[2] == (1, "Wien", 40, None, True)


GONE_JOB = """
from microbatch import Flow, Job, Source, Upsert
from transforms import people

JOB = Job(
    Flow("take_gone", reads=Source("gone", schema="id BIGINT, gone BOOLEAN"), writes=Upsert("bronze.gone", keys=["id"])),
    Flow("latest", reads=Source("people", schema="id BIGINT, at BIGINT"), snapshots={"gone": "bronze.gone"},
         transform=people.marked, writes=Upsert("silver.people", keys=["id"], newest_by="at", delete_when="gone")),
)
"""
GONE_TRANSFORM = '''
def marked(people, gone):
    """Add whether somebody is gone."""
    return people.join(gone, "id", "left")
'''
GONE_CONF = """
sources:
  gone: {kind: files, format: json, path: "${landing}/gone"}
  people: {kind: files, format: json, path: "${landing}/people"}
"""


def test_a_deletion_of_an_attempt_that_never_reached_the_table_is_forgotten(bench: Bench):
    """What deletes a row may change between two attempts: here a dimension takes its word back."""
    bench.write("jobs/people.py", GONE_JOB)
    bench.write("transforms/people.py", GONE_TRANSFORM)
    bench.write("conf/base/people.yml", GONE_CONF)
    bench.land("gone", {"id": 1, "gone": True})
    bench.land("people", {"id": 1, "at": 30})
    bench.run("people", flows=["take_gone"])
    bench.crash("people", before="target", flows=["latest"])
    assert len(ops.rows(bench.storage["warehouse"], "deletes")) == 1
    bench.land("gone", {"id": 1, "gone": False})
    bench.run("people")
    assert ops.rows(bench.storage["warehouse"], "deletes") == []
    assert [(row.id, row.at) for row in bench.read("silver.people").collect()] == [(1, 30)]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_tables_do_not_depend_on_the_order_in_which_versions_come(customers: Bench, seed: int, tmp_path_factory):
    """Twelve versions of two keys in random batches end as the same versions in one batch do."""
    dice = random.Random(seed)
    times = itertools.product((1, 2), range(6))
    versions = [version(id_, dice.choice("ABC"), minute, gone=dice.random() < 0.2) for id_, minute in times]
    results = []
    for name, order in (("one", versions), ("many", dice.sample(versions, len(versions)))):
        here = Bench(customers.spark, customers.root, tmp_path_factory.mktemp(name))
        for batch in [order] if name == "one" else [order[i : i + 3] for i in range(0, 12, 3)]:
            here.land("customers", *batch)
        here.run("customers")
        latest = sorted((r.id, r.city, r.at.minute) for r in here.read("silver.latest").collect())
        results.append((intervals(here), latest))
    assert results[0] == results[1], f"seed {seed}"
