"""A checkpoint, a table or a ledger that is not as the engine left it stops the flow before Spark is started."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from microbatch.errors import JobHeld, MicrobatchError, StateChanged
from microbatch.observers import Lines
from microbatch.runner import run
from microbatch.sink import small
from microbatch.testing import Bench
from tests import orders as suite
from tests.orders import order

pytestmark = pytest.mark.slow  # whole runs of the engine, or processes of their own

LAST = 2  # the last batch of both flows
SOURCE = 'Source("orders", schema="order_id BIGINT, amount DECIMAL(10,2), updated_at TIMESTAMP")'


@pytest.fixture(scope="module")
def worked(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The suite of orders after three runs: three batches of each flow, and a file that is pending."""
    bench = Bench(spark, Path(), tmp_path_factory.mktemp("worked"))
    declare(bench)
    for number in range(LAST + 1):
        bench.land("orders", order(number), order(10 + number, "-1.00"), order(0, f"{number + 1}.00", number))
        bench.run("orders")
    bench.land("orders", order(99))
    shutil.copytree(home(bench), aside(bench))
    return bench


@pytest.fixture
def bench(worked: Bench) -> Iterator[Bench]:
    """The suite as it was after its three runs, in the same place."""
    yield worked
    shutil.rmtree(home(worked))
    shutil.copytree(aside(worked), home(worked))
    declare(worked)
    worked.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()


def declare(bench: Bench, job: str = suite.ORDERS_JOB, conf: str = suite.ORDERS_CONF) -> None:
    bench.write("jobs/orders.py", job)
    bench.write("transforms/orders.py", suite.ORDERS_TRANSFORM)
    bench.write("expectations/orders/orders.yml", suite.ORDERS_RULES)
    bench.write("conf/base/orders.yml", conf)


def home(bench: Bench) -> Path:
    return Path(bench.storage["warehouse"]).parent


def aside(bench: Bench) -> Path:
    return home(bench).with_name("aside")


def kept(bench: Bench) -> dict[str, bytes]:
    """Every file of the checkpoints and every commit of every table; without the note of the run itself."""
    checkpoints = Path(bench.storage["checkpoints"])
    files = [file for file in checkpoints.rglob("*") if file.is_file() and file.name != ".lock"]
    files += [log for log in Path(bench.storage["warehouse"]).rglob("_delta_log/*.json") if "ops/runs" not in str(log)]
    return {str(file): file.read_bytes() for file in files}


def refusal(bench: Bench, flow: str) -> MicrobatchError:
    """What stops the flow; everything is as it was, and no Spark was asked for."""
    before, said = kept(bench), io.StringIO()
    report = run(bench.suite(), ["orders"], flows=[flow], observer=Lines(said))
    assert "starting Spark" not in said.getvalue()
    assert kept(bench) == before
    [error] = report.errors
    assert isinstance(error, MicrobatchError)
    assert report.exit_code == error.exit_code
    assert len(str(error).splitlines()) == 1
    return error


def silver(bench: Bench) -> list[tuple[int, int]]:
    return sorted((row.order_id, row.cents) for row in bench.read("silver.orders").collect())


EXPECTED = [(0, 300), (1, 100), (2, 100), (99, 100)]


@pytest.mark.parametrize("lost", [1, 2, 3], ids=["the last", "the last two", "all"])
def test_commits_that_are_gone_are_caught_up_with_and_no_row_is_doubled(bench: Bench, lost: int):
    for flow in ("ingest", "refine"):
        for number in range(LAST, LAST - lost, -1):
            (bench.checkpoint("orders", flow) / "commits" / str(number)).unlink()
            (bench.checkpoint("orders", flow) / "commits" / f".{number}.crc").unlink(missing_ok=True)
    report = bench.report("orders")
    assert (report.exit_code, [flow.state for flow in report.flows]) == (0, ["done", "done"])
    assert silver(bench) == EXPECTED
    assert bench.read("bronze.orders").count() == 10
    assert bench.quarantine("orders").count() == 3
    numbers = [(batch["flow"], batch["batch_id"]) for batch in bench.ledger("orders")]
    assert sorted(numbers) == [(flow, number) for flow in ("ingest", "refine") for number in range(LAST + 2)]


DAMAGE = {"empty": b"", "garbage": b"\x00\xff\x13 nothing", "half": b'v1\n{"batchWaterm'}
FILES = [
    ("ingest", f"offsets/{LAST}"),
    ("ingest", f"commits/{LAST}"),
    ("ingest", f"sources/0/{LAST}"),
    ("ingest", "sources/0/0"),
    ("ingest", "metadata"),
    ("refine", f"offsets/{LAST}"),
    ("refine", f"commits/{LAST}"),
    ("refine", "metadata"),
    ("refine", "microbatch/reads.json"),
]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(("flow", "file"), FILES)
def test_a_damaged_file_of_a_checkpoint_is_named(bench: Bench, flow: str, file: str, damage: str):
    damaged = bench.checkpoint("orders", flow) / file
    damaged.write_bytes(DAMAGE[damage])
    error = refusal(bench, flow)
    assert (type(error), error.exit_code) == (StateChanged, 1)
    assert f"checkpoint damaged: {damaged}" in str(error)
    assert "--accept checkpoint" in str(error)


@pytest.mark.parametrize(
    "file", ["metadata", f"offsets/{LAST}", f"offsets/{LAST - 1}", f"sources/0/{LAST}", "sources/0/0"]
)
def test_a_file_that_is_gone_from_a_checkpoint_is_named(bench: Bench, file: str):
    gone = bench.checkpoint("orders", "ingest") / file
    gone.unlink()
    assert f"checkpoint damaged: {gone} is missing" in str(refusal(bench, "ingest"))


@pytest.mark.parametrize("folder", ["offsets", "sources"])
def test_a_folder_that_is_gone_from_a_checkpoint_stops_the_flow(bench: Bench, folder: str):
    shutil.rmtree(bench.checkpoint("orders", "ingest") / folder)
    assert "checkpoint damaged" in str(refusal(bench, "ingest"))


def test_offsets_and_commits_that_are_both_gone_are_seen_from_the_table(bench: Bench):
    for folder in ("offsets", "commits"):
        shutil.rmtree(bench.checkpoint("orders", "refine") / folder)
    assert "silver.orders is 3 batches ahead" in str(refusal(bench, "refine"))


def test_a_checkpoint_that_is_gone_while_its_table_is_full_is_called_lost(bench: Bench):
    shutil.rmtree(bench.checkpoint("orders", "ingest"))
    said = str(refusal(bench, "ingest"))
    assert "lost checkpoint; table bronze.orders holds batches 0..2" in said
    assert "an Append doubles what it holds" in said


def test_a_lost_checkpoint_is_seen_from_the_table_where_the_ledger_is_gone_too(bench: Bench):
    shutil.rmtree(bench.checkpoint("orders", "ingest"))
    shutil.rmtree(Path(bench.storage["warehouse"]) / "ops")
    assert "lost checkpoint; table bronze.orders holds batches 0..2" in str(refusal(bench, "ingest"))


@pytest.mark.parametrize("behind", [1, 2])
def test_a_checkpoint_restored_from_an_older_copy_is_told_by_how_far_it_is_behind(bench: Bench, behind: int):
    for flow in ("ingest", "refine"):
        checkpoint = bench.checkpoint("orders", flow)
        for number in range(LAST, LAST - behind, -1):
            for folder in ("offsets", "commits", "sources/0"):
                (checkpoint / folder / str(number)).unlink(missing_ok=True)
        assert f"{behind} batch{'es' if behind > 1 else ''} ahead" in str(refusal(bench, flow))


def test_a_table_that_was_restored_to_an_older_version_stops_its_flow(bench: Bench):
    from deltalake import DeltaTable

    DeltaTable(f"{bench.storage['warehouse']}/silver/orders").restore(0)
    assert "table silver.orders was dropped or restored" in str(refusal(bench, "refine"))


@pytest.mark.parametrize(
    ("most_rows", "kinds", "words"),
    [
        (small.MOST_ROWS, ("json",), f"the ledger knows batch {LAST + 1}, the table holds {LAST}"),
        (-1, ("json", "crc"), f"the ledger knows batch {LAST + 1}, the table holds {LAST}"),
        (-1, ("json",), "the log of table silver.orders or of the ledger cannot be read"),
    ],
    ids=["by delta-rs", "by Spark", "by Spark, its checksum left"],
)
def test_a_table_that_lacks_its_newest_commit_stops_its_flow(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, most_rows: int, kinds: tuple[str, ...], words: str
):
    monkeypatch.setattr(small, "MOST_ROWS", most_rows)
    bench.run("orders")
    bench.land("orders", order(100))
    for kind in kinds:
        (Path(bench.storage["warehouse"]) / f"silver/orders/_delta_log/{LAST + 1:020}.{kind}").unlink()
    assert words in str(refusal(bench, "refine"))


def test_a_table_that_was_dropped_stops_its_flow(bench: Bench):
    shutil.rmtree(Path(bench.storage["warehouse"]) / "silver/orders")
    said = str(refusal(bench, "refine"))
    assert "table silver.orders was dropped or restored" in said and "put the table back" in said


def test_the_checkpoint_of_another_flow_is_not_taken_for_ones_own(bench: Bench):
    shutil.rmtree(bench.checkpoint("orders", "refine"))
    shutil.copytree(bench.checkpoint("orders", "ingest"), bench.checkpoint("orders", "refine"))
    assert "is of another query" in str(refusal(bench, "refine"))


@pytest.mark.parametrize("batches", [1, 3])
def test_a_new_flow_does_not_start_with_the_checkpoint_of_another(bench: Bench, batches: int):
    """Of the same source even: it would leave out all that the other has read."""
    second = f'    Flow("second", reads={SOURCE}, writes=Append("bronze.second")),\n)'
    declare(bench, suite.ORDERS_JOB.rstrip().removesuffix(")") + second)
    checkpoint = bench.checkpoint("orders", "second")
    shutil.copytree(bench.checkpoint("orders", "ingest"), checkpoint)
    for number in range(batches, LAST + 1):
        for folder in ("offsets", "commits", "sources/0"):
            (checkpoint / folder / str(number)).unlink()
    assert f"it has done batch {batches - 1}, and neither bronze.second nor the ledger has it" in str(
        refusal(bench, "second")
    )


@pytest.mark.parametrize(
    ("job", "conf", "words"),
    [
        (("amount DECIMAL(10,2)", "amount STRING"), ("", ""), ("schema was", "amount DECIMAL(10,2)", "amount STRING")),
        (("", ""), ('/orders"', '/elsewhere"'), ("path was", "/landing/orders", "/landing/elsewhere")),
        (("", ""), ("format: json", "format: csv"), ("format was 'json', is 'csv'",)),
    ],
    ids=["schema", "path", "format"],
)
def test_a_source_that_is_another_than_the_checkpoint_read_is_a_mistake_in_the_suite(
    bench: Bench, job: tuple[str, str], conf: tuple[str, str], words: tuple[str, ...]
):
    declare(bench, suite.ORDERS_JOB.replace(*job), suite.ORDERS_CONF.replace(*conf))
    (home(bench) / "landing" / "elsewhere").mkdir()
    error = refusal(bench, "ingest")
    assert error.exit_code == 2
    assert "jobs/orders.py: flow ingest reads something else than its checkpoint" in str(error)
    assert all(word in str(error) for word in words)


def test_a_flow_that_was_renamed_is_known_by_what_its_table_says(bench: Bench):
    declare(bench, suite.ORDERS_JOB.replace('"ingest"', '"take_in"'))
    said = str(refusal(bench, "take_in"))
    assert "bronze.orders was written by flow ingest, which the job no longer has; was it renamed?" in said
    assert "name it ingest again" in said


def test_a_flow_that_was_left_alone_is_idle_and_changes_nothing(bench: Bench):
    before = kept(bench)
    report = run(bench.suite(), ["orders"], flows=["refine"])
    assert ([flow.state for flow in report.flows], report.exit_code) == (["idle"], 0)
    assert kept(bench) == before


OTHER = """
from microbatch import Append, Flow, Job, Source

JOB = Job(Flow("take", reads=Source("taken", schema="a INT"), writes=Append("bronze.taken")))
"""
HOLDER = """
import sys
from microbatch.runner.lock import held

with held(sys.argv[1], "orders"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(bench: Bench) -> Iterator[subprocess.Popen]:
    """Another process that holds the job."""
    command = [sys.executable, "-c", HOLDER, bench.storage["checkpoints"]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def root() -> Path:
    return Path(__file__).resolve().parent.parent


def test_a_job_that_another_process_runs_is_refused_at_once_with_its_pid(bench: Bench, holder: subprocess.Popen):
    before = kept(bench)
    with pytest.raises(JobHeld, match=f"job orders is held by another run: pid {holder.pid} on .* since 20") as refused:
        bench.report("orders")
    assert refused.value.exit_code == 4
    assert kept(bench) == before


def test_a_holder_that_is_killed_holds_nothing_any_more(bench: Bench, holder: subprocess.Popen):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert bench.report("orders", flows=["refine"]).exit_code == 0


def test_two_jobs_of_one_suite_do_not_hold_each_other(bench: Bench, holder: subprocess.Popen):
    job = bench.write("jobs/other.py", OTHER)
    conf = bench.write(
        "conf/base/other.yml", 'sources: {taken: {kind: files, format: json, path: "${landing}/taken"}}\n'
    )
    (home(bench) / "landing" / "taken").mkdir()
    assert bench.report("other").exit_code == 0
    job.unlink(), conf.unlink()
