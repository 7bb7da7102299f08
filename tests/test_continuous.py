"""A run that goes on: each flow at its own pace, until SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from microbatch.commands import audit
from microbatch.sink.tables import Table
from microbatch.testing import Bench
from tests.orders import order

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent.parent
LATE_JOB = '''
"""A source whose folder comes late, beside one that is there."""

from microbatch import Append, Flow, Job, Source

JOB = Job(
    Flow("late", reads=Source("late", schema="id BIGINT"), writes=Append("bronze.late")),
    Flow("wrong", reads=Source("wrong", schema="id BIGINT"), expects="wrong", writes=Append("bronze.wrong")),
)
'''
LATE_CONF = """
sources:
  late: {kind: files, format: json, path: "${landing}/late"}
  wrong: {kind: files, format: json, path: "${landing}/wrong"}
retry: {attempts: 0}
"""
WRONG_RULES = """
name: wrong
expectations:
  - type: expect_table_row_count_to_equal
    kwargs: {value: 0}
    severity: critical
"""


def wait_for(what: Callable[[], bool], seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.2)


def rows(bench: Bench, table: str) -> int:
    stored = Table(bench.storage["warehouse"], table)
    return stored.open().to_pyarrow_table().num_rows if stored.exists() else 0


def health(port: int) -> tuple[int, dict[str, str]]:
    """The status of /health, and how each flow says it is."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
            code, told = answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as refused:
        code, told = refused.code, json.loads(refused.read())
    return code, {name: flow["state"] for name, flow in told["flows"].items()}


def test_flows_take_in_what_comes_at_their_own_pace_until_sigterm(orders: Bench):
    """One source's folder comes late, one flow fails for good: neither stops the others; metrics are served meanwhile."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    storage = "".join(f"  {name}: {path}\n" for name, path in orders.storage.items())
    orders.write("conf/base/environment.yml", f"storage:\n{storage}metrics: {{port: {port}}}\n")
    orders.write("jobs/late.py", LATE_JOB)
    orders.write("conf/base/late.yml", LATE_CONF)
    orders.write("expectations/late/wrong.yml", WRONG_RULES)
    orders.land("orders", order(1), order(2, "-1.00"))
    orders.land("wrong", {"id": 1})
    words = [sys.executable, "-m", "microbatch", "run", "--all", "--continuous", "--suite", str(orders.root)]
    with (Path(orders.root) / "log").open("w") as log:
        run = subprocess.Popen(words, cwd=HERE, env=dict(os.environ), stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            wait_for(lambda: rows(orders, "silver.orders") == 1)
            orders.land("orders", order(3), order(4))
            wait_for(lambda: rows(orders, "silver.orders") == 3)
            wait_for(lambda: "wrong has ended" in (Path(orders.root) / "log").read_text())
            orders.land("late", {"id": 1}, {"id": 2})
            wait_for(lambda: rows(orders, "bronze.late") == 2)
            served = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
            assert "microbatch_rows_read_total" in served
            ended = {
                "orders.ingest": "waiting",
                "orders.refine": "waiting",
                "late.late": "waiting",
                "late.wrong": "ended",
            }
            wait_for(lambda: health(port) == (503, ended))
        finally:
            run.send_signal(signal.SIGTERM)
            told, _ = run.communicate(timeout=120)
    said = (Path(orders.root) / "log").read_text()
    assert run.returncode == 3, said
    assert "late.late: source late is not available" in said
    assert "Traceback" not in said
    table = [line.split()[:4] for line in told.splitlines()]
    assert ["orders.ingest", "done", "2", "4"] in table
    assert ["late.wrong", "failed", "0", "0"] in table
    for job in ("orders", "late"):
        assert audit.execute(orders.suite(), orders.suite().job(job)) == 0
