"""History: every version with the time it held, whatever order versions come in. Deletions are remembered."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from microbatch.commands import backfill
from microbatch.job import History
from microbatch.runner import run
from microbatch.sink import history, ops
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


def intervals(bench: Bench, *more: str) -> list[tuple[object, ...]]:
    rows = bench.read("silver.history").orderBy("id", "valid_from").collect()
    ends = [row.valid_to.minute if row.valid_to else None for row in rows]
    held = [(row.id, row.city, row.valid_from.minute, end, row.is_current) for row, end in zip(rows, ends, strict=True)]
    return [(*one, *(row[name] for name in more)) for one, row in zip(held, rows, strict=True)]


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


def test_on_a_tie_the_later_batch_wins_and_stays_the_winner(customers: Bench):
    """Also over what is remembered: the deletion that it takes the place of, and a version that no row shows."""
    customers.land(
        "customers", version(1, "Rome", 1), version(2, "Rome", 1), version(2, "Rome", 5), version(2, "Rome", 9)
    )
    customers.land("customers", version(1, None, 5, gone=True))
    customers.land("customers", version(1, "Oslo", 5), version(2, "Oslo", 5))
    customers.land("customers", version(1, "Bern", 7), version(2, "Bern", 7))
    customers.run("customers", flows=["history"])
    assert intervals(customers) == [
        (1, "Rome", 1, 5, False),
        (1, "Oslo", 5, 7, False),
        (1, "Bern", 7, None, True),
        (2, "Rome", 1, 5, False),
        (2, "Oslo", 5, 7, False),
        (2, "Bern", 7, 9, False),
        (2, "Rome", 9, None, True),
    ]


def test_a_deletion_that_lost_a_tie_opens_no_gap_once_the_row_that_beat_it_is_in_no_interval(customers: Bench):
    """What came without a change since hides that row: behind a deletion of its own batch, as a rewritten group says it each
    time, and behind one of an earlier batch."""
    customers.land("customers", version(1, "Rome", 0), version(2, None, 5, gone=True))
    customers.land("customers", version(1, None, 1, gone=True), version(1, "Rome", 1), version(2, "Oslo", 5))
    customers.land("customers", version(1, None, 2, gone=True), version(1, "Rome", 2), version(2, "Oslo", 7))
    customers.land("customers", version(1, None, 3, gone=True), version(1, "Rome", 3), version(2, "Bern", 9))
    customers.run("customers", flows=["history"])
    assert intervals(customers) == [(1, "Rome", 0, None, True), (2, "Oslo", 5, 9, False), (2, "Bern", 9, None, True)]
    assert [(row["key"], row["batch_id"]) for row in ops.rows(customers.storage["warehouse"], "deletes")] == [
        ('{"id":2}', 0)
    ]


def test_of_a_row_and_its_deletion_at_one_time_the_row_stays_whatever_its_columns_are_called(spark: SparkSession):
    """The changes of a table that was rewritten group by group hold both for one key, at one time."""
    schema = "_at BIGINT, _next STRING, _from BIGINT, _first MAP<STRING, INT>"
    versions = [(number, op, 5, {"a": number}) for number in range(20) for op in ("delete", "insert")]
    target = History("silver.h", keys="_at", newest_by="_from", delete_when="_next = 'delete'")
    told = history.tell(spark.createDataFrame(versions, schema), target, None)
    found = sorted(told.rows.select("_at", "_next", "_from", "_first", "valid_from", "is_current").collect())
    assert [tuple(row) for row in found] == [(number, "insert", 5, {"a": number}, 5, True) for number in range(20)]


DERIVED_JOB = '''
"""Customers, taken as they come and told in order."""

from microbatch import Append, Flow, History, Job, Source
from transforms import cities

SOURCE = Source("customers", schema="id BIGINT, city STRING, email STRING, at TIMESTAMP, gone BOOLEAN")
JOB = Job(
    Flow("take", reads=SOURCE, writes=Append("bronze.customers")),
    Flow("history", reads="bronze.customers", transform=cities.named,
         writes=History("silver.history", keys=["id"], newest_by="at", track=["city"], delete_when="gone")),
)
'''
NAMED = '''
from pyspark.sql import functions as F


def named(customers):
    """Put a sign before each city."""
    return customers.withColumn("city", F.concat(F.lit("SIGN"), "city"))
'''


@pytest.mark.parametrize("where", [None, "id = 1"])
def test_a_backfill_forgets_the_versions_it_tells_anew(customers: Bench, where: str | None):
    customers.write("jobs/customers.py", DERIVED_JOB)
    customers.write("transforms/cities.py", NAMED.replace("SIGN", "?"))
    customers.land("customers", *[version(id_, "Rome", minute) for id_ in (1, 2) for minute in (1, 5, 9)])
    customers.run("customers")
    customers.write("transforms/cities.py", NAMED.replace("SIGN", "!"))
    suite = customers.suite()
    backfill.execute(suite, suite.job("customers"), "history", where)
    customers.land("customers", *[version(id_, "Oslo", 3) for id_ in (1, 2)])
    customers.run("customers")
    sign = "!" if where is None else "?"
    assert intervals(customers) == [
        (1, "!Rome", 1, 3, False),
        (1, "!Oslo", 3, 5, False),
        (1, "!Rome", 5, None, True),
        (2, f"{sign}Rome", 1, 3, False),
        (2, "!Oslo", 3, 5, False),
        (2, f"{sign}Rome", 5, None, True),
    ]


MENDED_JOB = """
from microbatch import Append, Flow, History, Job, Source, Upsert
from transforms import times

SOURCE = Source("customers", schema="id BIGINT, city STRING, email STRING, at TIMESTAMP, gone BOOLEAN")
HOW = {"keys": ["id"], "newest_by": "at", "delete_when": "gone"}
JOB = Job(
    Flow("take", reads=SOURCE, writes=Append("bronze.customers")),
    Flow("history", reads=READS, transform=times.told, writes=History("silver.history", track=["city"], **HOW)),
    Flow("latest", reads=READS, transform=times.told, writes=Upsert("silver.latest", **HOW)),
)
"""
TOLD = """
from pyspark.sql import functions as F


def told(customers):
    return customers.withColumn("at", F.col("at") + F.expr("INTERVAL LATE MINUTES"))
"""


@pytest.fixture
def late(customers: Bench) -> Callable[[str], Bench]:
    """Three customers who came in minute 1 and went in minute 10, by a transform that makes each time 20 minutes late."""

    def make(reads: str) -> Bench:
        customers.write("jobs/customers.py", MENDED_JOB.replace("READS", reads))
        customers.write("transforms/times.py", TOLD.replace("LATE", "20"))
        customers.land("customers", *[version(id_, "Rome", 1) for id_ in (1, 2, 3)])
        customers.land("customers", *[version(id_, None, 10, gone=True) for id_ in (1, 2, 3)])
        customers.run("customers")
        return customers

    return make


def latest(bench: Bench) -> list[tuple[int, str]]:
    return sorted((row.id, row.city) for row in bench.read("silver.latest").collect())


class Killed(Exception):
    """A staged crash."""


@pytest.mark.parametrize(("where", "crash_at"), [(None, "memory"), ("id <> 2", None)])
def test_a_backfill_remembers_the_deletions_it_derives_and_no_others_of_their_keys(
    late: Callable[[str], Bench], where: str | None, crash_at: str | None
):
    customers = late('"bronze.customers"')
    customers.write("transforms/times.py", TOLD.replace("LATE", "0"))
    suite = customers.suite()
    for flow in ("history", "latest"):

        def reached(step: str, at: str = f"{crash_at} {flow}") -> None:
            if step == at:
                raise Killed

        if crash_at:
            with pytest.raises(Killed):
                backfill.execute(suite, suite.job("customers"), flow, where, reached=reached)
        backfill.execute(suite, suite.job("customers"), flow, where)
    customers.land("customers", version(1, "Oslo", 15), version(2, "Oslo", 15), version(3, "Bern", 5))
    customers.run("customers")
    second = [(2, "Rome", 1, 10, False), (2, "Oslo", 15, None, True)]
    if where:
        second = [(2, "Oslo", 15, 21, False), (2, "Rome", 21, 30, False)]
    assert intervals(customers) == [
        (1, "Rome", 1, 10, False),
        (1, "Oslo", 15, None, True),
        *second,
        (3, "Rome", 1, 5, False),
        (3, "Bern", 5, 10, False),
    ]
    assert latest(customers) == ([(1, "Oslo")] if where else [(1, "Oslo"), (2, "Oslo")])


def test_what_is_remembered_of_a_table_goes_with_it_where_the_source_is_taken_in_anew_and_stays_where_it_stays(
    late: Callable[[str], Bench],
):
    """The source need not hold all of it any more: an older version must not come back because a checkpoint was lost."""
    customers = late("SOURCE")
    customers.write("transforms/times.py", TOLD.replace("LATE", "0"))

    def anew() -> list[int]:
        flows = ("history", "latest")
        return [run(customers.suite(), ["customers"], flows=[flow], accept="checkpoint").exit_code for flow in flows]

    for table in ("history", "latest"):
        shutil.rmtree(Path(customers.storage["warehouse"]) / "silver" / table)
    customers.land("customers", version(1, "Oslo", 15))
    assert anew() == [0, 0]
    assert latest(customers) == [(1, "Oslo")]
    told = [(1, "Rome", 1, 10, False), (1, "Oslo", 15, None, True), *[(id_, "Rome", 1, 10, False) for id_ in (2, 3)]]
    assert intervals(customers) == told
    for file in (Path(customers.storage["landing"]) / "customers").iterdir():
        file.unlink()
    customers.land("customers", version(3, "Bern", 5))
    assert anew() == [0, 0]
    assert latest(customers) == [(1, "Oslo")]
    assert intervals(customers) == [*told[:-1], (3, "Rome", 1, 5, False), (3, "Bern", 5, 10, False)]


CHANGES_JOB = """
from microbatch import Flow, Job, Source, Upsert

SOURCE = Source("customers", schema="id BIGINT, city STRING, email STRING, at TIMESTAMP, gone BOOLEAN")
JOB = Job(
    Flow("take", reads=SOURCE, writes=Upsert("bronze.customers", keys=["id"], delete_when="gone")),
    Flow("latest", reads="bronze.customers",
         writes=Upsert("silver.latest", keys=["id"], newest_by="at", delete_when="_op = 'delete'")),
)
"""


def test_a_backfill_from_the_state_of_a_table_keeps_the_deletions_of_keys_that_are_not_in_it(customers: Bench):
    """And no others: what is there was not deleted since."""
    customers.write("jobs/customers.py", CHANGES_JOB)
    for rows in (("Rome", 10), (None, 11)):
        customers.land("customers", *[version(id_, *rows, gone=rows[0] is None) for id_ in (1, 2)])
        customers.run("customers")
    customers.land("customers", version(2, "Bonn", 5))
    customers.run("customers")
    assert latest(customers) == []
    suite = customers.suite()
    backfill.execute(suite, suite.job("customers"), "latest")
    assert latest(customers) == [(2, "Bonn")]
    customers.land("customers", version(1, "Oslo", 7), version(2, "Oslo", 7))
    customers.run("customers")
    assert latest(customers) == [(2, "Oslo")]


def test_the_tables_do_not_depend_on_the_order_in_which_versions_come(customers: Bench, tmp_path_factory):
    """The versions of 300 keys in random batches end as those that win their ties do in one batch, and as told by hand."""
    seed = random.SystemRandom().randrange(10**6)
    dice = random.Random(seed)
    batches: list[dict[tuple[int, int, bool], dict[str, object]]] = [{} for _ in range(5)]
    for id_ in range(300):
        for minute in dice.choices(range(12), k=dice.randint(1, 20)):
            city, gone = dice.choice(["A", "A", "B", None]), dice.random() < 0.25
            # Of half of the keys about in order: what is hidden once is not read again before all that is late has come.
            batch = dice.randrange(5) if id_ % 2 else min(4, max(0, minute * 5 // 12 + dice.randint(-1, 1)))
            # In one batch a row and its deletion tie, and no two rows: of those their hash would decide.
            batches[batch][id_, minute, gone] = version(id_, city, minute, gone, email=str(dice.random()))
    winners: dict[tuple[int, int], dict[str, object]] = {}
    for versions in batches:
        for (id_, minute, _), each in sorted(versions.items(), key=lambda held: not held[0][2]):  # rows over deletions
            winners[id_, minute] = each
    results = []
    for name, landed in (("one", [[*winners.values()]]), ("many", [[*each.values()] for each in batches])):
        here = Bench(customers.spark, customers.root, tmp_path_factory.mktemp(name))
        for each in landed:
            here.land("customers", *dice.sample(each, len(each)))
        here.run("customers")
        latest = sorted((r.id, r.city or "", r.email, r.at.minute) for r in here.read("silver.latest").collect())
        results.append((intervals(here, "email"), latest))
    assert results[0][0] == told_by_hand([*winners.values()]), f"seed {seed}"
    assert results[0] == results[1], f"seed {seed}"


def told_by_hand(versions: list[dict[str, object]]) -> list[tuple[object, ...]]:
    """The intervals of versions that differ in their time: one after the other, as somebody with a pencil has them."""
    told: list[list[object]] = []
    for each in sorted(versions, key=lambda each: (each["id"], each["at"])):
        minute, open_ = int(str(each["at"])[14:16]), bool(told) and told[-1][0] == each["id"] and told[-1][4]
        if open_ and not each["gone"] and told[-1][1] == each["city"]:
            told[-1][5] = each["email"]
            continue
        if open_:
            told[-1][3:5] = minute, False
        if not each["gone"]:
            told.append([each["id"], each["city"], minute, None, True, each["email"]])
    return [tuple(each) for each in told]
