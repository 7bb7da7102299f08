"""A run: what happens when a flow fails, when somebody asks it to end, and when there is nothing to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from deltalake import DeltaTable

from microbatch.errors import (
    ConfigError,
    ExpectationStopped,
    JobHeld,
    Problem,
    SourceUnavailable,
    StateChanged,
    WarehouseUnavailable,
)
from microbatch.runner import FlowRun, Report
from microbatch.sink import ops
from microbatch.testing import Bench, Crash
from tests.orders import ORDERS_CONF, order

HERE = Path(__file__).resolve().parent.parent
MISTAKE = ConfigError(Problem("jobs", "is wrong"))
CHANGED, STOPPED = StateChanged("f", "changed", "mend it"), ExpectationStopped("f", 0, ("x",))
AWAY, HELD = SourceUnavailable("s", "away"), JobHeld("j", "pid 1")


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([], 0),
        ([HELD], 4),
        ([HELD, AWAY], 5),
        ([AWAY, STOPPED, HELD], 3),
        ([STOPPED, CHANGED, AWAY], 1),
        ([CHANGED, MISTAKE, STOPPED], 2),
        ([AWAY, SystemExit(7)], 1),
    ],
)
def test_of_several_failures_the_one_that_most_needs_somebody_gives_the_exit_code(
    errors: list[BaseException], code: int
):
    assert Report("r", tuple(FlowRun("j", "f", "failed", (), error) for error in errors)).exit_code == code


LEFT = """
from microbatch import Append, Flow, Job, Source, Upsert
from transforms import parts

JOB = Job(
    Flow("take", reads=Source("left", schema="id BIGINT, v BIGINT"), writes=Append("bronze.left")),
    Flow("halve", reads="bronze.left", transform=parts.halve, writes=Upsert("silver.halves", keys="id")),
    Flow("copy", reads="silver.halves", writes=Upsert("gold.halves", keys="id")),
    Flow("beside", reads="bronze.left", writes=Append("silver.beside")),
)
"""
RIGHT = """
from microbatch import Append, Flow, Job, Source, Upsert
from transforms import parts

JOB = Job(
    Flow("enrich", reads=Source("right", schema="id BIGINT"), transform=parts.enrich,
         snapshots={"halves": "silver.halves"}, writes=Append("gold.enriched")),
    Flow("alone", reads=Source("more", schema="id BIGINT"), writes=Append("bronze.more")),
)
"""
PARTS = '''
from pyspark.sql import functions as F


def halve(rows):
    """Halve; not total."""
    return rows.withColumn("half", F.lit(10) / F.col("v"))


def enrich(rows, halves):
    """Add the half."""
    return rows.join(halves.select("id", "half"), "id", "left")
'''
ENDING = '''
calls = 0


def refine(orders):
    """Ends the process when a batch runs: the first call is over an empty frame."""
    global calls
    calls += 1
    if calls > 1:
        raise {raised}
    return orders
'''


def two_jobs(bench: Bench) -> None:
    bench.write("jobs/left.py", LEFT)
    bench.write("jobs/right.py", RIGHT)
    bench.write("transforms/parts.py", PARTS)
    source = "{name}: {{kind: files, format: json, path: '${{landing}}/{name}'}}"
    left, right, more = (source.format(name=name) for name in ("left", "right", "more"))
    bench.write("conf/base/left.yml", f"sources:\n  {left}\nretry: {{attempts: 0}}\n")
    bench.write("conf/base/right.yml", f"sources:\n  {right}\n  {more}\nretry: {{attempts: 0}}\n")


@pytest.mark.slow
def test_what_depends_on_a_failed_flow_waits_and_all_else_goes_on_across_jobs(bench: Bench):
    two_jobs(bench)
    bench.land("left", {"id": 1, "v": 0})
    bench.land("right", {"id": 1})
    bench.land("more", {"id": 7})
    report = bench.report("right", "left")
    assert {(flow.job, flow.flow): flow.state for flow in report.flows} == {
        ("left", "take"): "done",
        ("left", "halve"): "failed",
        ("left", "copy"): "waiting",
        ("left", "beside"): "done",
        ("right", "enrich"): "waiting",
        ("right", "alone"): "done",
    }
    assert report.exit_code == 1
    assert "DIVIDE_BY_ZERO" in str(report.errors[0])
    runs = {run["job"]: run for run in _runs(bench)}
    assert (runs["left"]["status"], runs["left"]["exit_code"]) == ("failed", 1)
    assert (runs["right"]["status"], runs["right"]["exit_code"]) == ("done", 0)
    bench.write("transforms/parts.py", PARTS.replace('F.col("v")', "F.nullif(F.col('v'), F.lit(0))"))
    report = bench.report("right", "left")
    assert report.exit_code == 0
    assert [tuple(row) for row in bench.read("gold.enriched").collect()] == [(1, None)]
    assert bench.read("gold.halves").count() == 1


def _runs(bench: Bench) -> list[dict]:
    from microbatch.sink import ops

    return ops.rows(bench.storage["warehouse"], "runs")


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail, and do not hang, where the block takes longer."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.slow
@pytest.mark.parametrize("raised", ["SystemExit(3)", "KeyboardInterrupt()", "MemoryError()"])
def test_what_ends_a_process_ends_a_run_when_a_transform_raises_it_and_never_hangs_it(orders: Bench, raised: str):
    orders.write("transforms/orders.py", ENDING.replace("{raised}", raised))
    orders.land("orders", order(1))
    with within(240):
        report = orders.report("orders")
    assert ([flow.state for flow in report.flows], report.exit_code) == (["done", "failed"], 1)
    assert not orders.spark.streams.active
    assert "silver.orders" not in orders.versions()
    orders.write("transforms/orders.py", 'def refine(orders):\n    """As it is."""\n    return orders\n')
    assert orders.report("orders").exit_code == 0
    assert orders.read("silver.orders").count() == 1


# What follows runs the command itself, as a user does.

SLOW_JOB = """
from microbatch import Append, Flow, Job, Source
from transforms import slow

JOB = Job(Flow("take", reads=Source("numbers", schema="id BIGINT"), transform=slow.wait, writes=Append("bronze.numbers")))
"""
SLOW = '''
import os
import time


def wait(numbers):
    """Say that a batch has begun, and take a second."""
    if os.environ.get("BEGUN") and not numbers.isEmpty():
        open(os.environ["BEGUN"], "a").close()
        time.sleep(1.5)
    return numbers
'''
TELLING = '''
import os

calls = 0


def wait(numbers):
    """Raises in the batch {when}."""
    global calls
    calls += 1
    if calls > {calls}:
        raise ValueError("cannot reach " + os.environ["OPS_SECRET"])
    return numbers
'''
LOADED = """
import sys
from microbatch.cli import group

try:
    group(sys.argv[1:])
except SystemExit as ended:
    print(ended.code, [name for name in ("great_expectations", "py4j.java_gateway") if name in sys.modules])
"""
SLOW_CONF = """
sources:
  numbers: {kind: files, format: json, path: "${landing}/numbers", max_files_per_batch: 1}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite in a folder of its own: one job, four files, one file a batch."""
    root = tmp_path / "suite"
    for path, text in (("jobs/slow.py", SLOW_JOB), ("transforms/slow.py", SLOW), ("conf/base/slow.yml", SLOW_CONF)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    landing = root / "data/landing/numbers"
    landing.mkdir(parents=True)
    for number in range(4):
        (landing / f"{number}.json").write_text(f'{{"id": {number}}}\n')
    return root


def command(suite: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """`python -m microbatch` from the repository's root, which is a suite too."""
    words = [sys.executable, "-m", "microbatch", *arguments, "--suite", str(suite)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=HERE, env={**os.environ, **environment}, stdout=pipe, stderr=pipe, text=True)


def done(suite: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    with command(suite, *arguments, **environment) as process:
        out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.mark.slow
def test_sigterm_ends_a_run_after_the_batch_under_way_and_the_next_run_takes_the_rest(suite: Path, tmp_path: Path):
    begun = tmp_path / "begun"
    with command(suite, "run", "slow", BEGUN=str(begun)) as process:
        until = time.monotonic() + 120
        while not begun.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        process.terminate()
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "stopping after the batch under way" in err
    assert "Traceback" not in err
    assert "stopped" in out
    written = _ids(suite)
    assert 1 <= len(written) < 4
    words = [sys.executable, "-c", LOADED, "run", "slow", "--suite", str(suite)]
    ended = subprocess.run(words, cwd=HERE, capture_output=True, text=True, timeout=300)
    assert ended.stdout.splitlines()[-1] == "0 ['py4j.java_gateway']"  # nothing is expected: no Great Expectations
    assert _ids(suite) == [0, 1, 2, 3], ended.stderr

    started = time.monotonic()
    code, out, err = done(suite, "run", "slow", PATH="/nowhere", JAVA_HOME="/nowhere")  # no Java could be started
    assert (code, err) == (0, "")
    assert "nothing to do" in out
    assert time.monotonic() - started < 10  # 1 s on a quiet machine; what it must not do is to start a JVM


def _ids(suite: Path) -> list[int]:
    return sorted(DeltaTable(str(suite / "data/warehouse/bronze/numbers")).to_pyarrow_table().column("id").to_pylist())


def test_an_idle_run_loads_neither_spark_nor_great_expectations(suite: Path):
    for file in (suite / "data/landing/numbers").iterdir():
        file.unlink()
    words = ["run", "slow", "--suite", str(suite)]
    ended = subprocess.run([sys.executable, "-c", LOADED, *words], cwd=HERE, capture_output=True, text=True, timeout=60)
    assert ended.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("run", "slwo"), 2, "microbatch: jobs: there is no job slwo; did you mean slow?"),
        (("run", "slow", "--flow", "tkae"), 2, "microbatch: --flow: tkae is no flow of slow; did you mean take?"),
        (("run",), 2, "microbatch: run: name jobs or say --all; there are slow"),
        (("run", "daily_sales"), 2, "microbatch: jobs: there is no job daily_sales"),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(suite: Path, arguments: tuple[str, ...], code: int, line: str):
    returned, out, err = done(suite, *arguments)
    assert (returned, out) == (code, "")
    assert [said for said in err.splitlines() if said.startswith(line)] == err.splitlines()
    assert len(err.splitlines()) == 1


def test_a_folder_that_is_not_there_is_one_line_and_to_be_tried_later(suite: Path):
    (suite / "data/landing/numbers").rename(suite / "data/landing/elsewhere")
    returned, _, err = done(suite, "run", "slow")
    assert returned == 5
    assert [line for line in err.splitlines() if line.startswith("microbatch: ")] == err.splitlines()
    assert "source numbers is not available" in err and "Traceback" not in err


@pytest.mark.slow
def test_a_secret_is_never_printed_whoever_raises_the_text(suite: Path):
    secret = "p@ss:w/rd%7"
    (suite / "conf/base/environment.yml").write_text('channels: {ops: {url: "${env:OPS_SECRET}"}}\n')
    for calls, expected, debug in ((0, 2, ()), (1, 1, ("--debug",))):
        (suite / "transforms/slow.py").write_text(TELLING.format(calls=calls, when="or before it"))
        returned, out, err = done(suite, "run", "slow", *debug, OPS_SECRET=secret)
        assert returned == expected
        assert "cannot reach ***" in err
        assert ("Traceback" in err) == bool(debug)
        assert secret not in out + err and "p%40ss" not in out + err
    kept = [table.to_pyarrow_table().to_pylist() for table in _tables(suite)]
    assert "cannot reach ***" in str(kept)
    assert secret not in str(kept)
    files = [file for file in (suite / "data").rglob("*") if file.is_file()]
    assert [file for file in files if secret.encode() in file.read_bytes()] == []


def _tables(suite: Path) -> list[DeltaTable]:
    return [DeltaTable(str(log.parent)) for log in (suite / "data/warehouse").rglob("_delta_log")]


def test_a_run_whose_end_cannot_be_kept_says_so_and_all_else_it_does(orders: Bench):
    orders.write("conf/base/orders.yml", ORDERS_CONF + 'alerts:\n  - {when: "duration_s >= 0"}\n')
    in_the_way = Path(orders.storage["warehouse"]) / "ops" / "runs"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("no table")
    orders.land("orders", order(1))
    report = orders.report("orders")
    assert [flow.state for flow in report.flows] == ["done", "done"]
    assert report.exit_code == 5
    assert "ops.runs cannot be written, so how orders ended is not kept there" in str(report.errors[0])
    assert [change["alert"] for change in ops.rows(orders.storage["warehouse"], "alerts")] == ["duration_s >= 0"]
    orders.land("orders", order(2))
    first, second = orders.report("orders", crash_before="target").errors
    assert isinstance(first, Crash) and isinstance(second, WarehouseUnavailable)


def test_a_run_from_another_thread_leaves_signals_alone(bench: Bench):
    two_jobs(bench)
    for name in ("left", "right", "more"):
        Path(bench.storage["landing"], name).mkdir(parents=True)
    before, codes = signal.getsignal(signal.SIGTERM), []
    thread = threading.Thread(target=lambda: codes.append(bench.report("left").exit_code))
    thread.start()
    thread.join(60)
    assert codes == [0]
    assert signal.getsignal(signal.SIGTERM) is before
    assert bench.report("right").exit_code == 0
    assert signal.getsignal(signal.SIGTERM) is before
