"""What somebody types wrongly: one line with what, where and what to do; and a reader of stdout that goes early."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from microbatch.cli import group
from microbatch.runner.lock import held

HERE = Path(__file__).resolve().parents[2]
WRONG = {
    ("statsu",): "no such command 'statsu'; did you mean 'status'?",
    ("quarantine", "lst", "orders"): "quarantine: no such command 'lst'; did you mean 'list'?",
    ("run", "orders", "--contnuous"): "run: no such option '--contnuous'; did you mean '--continuous'?",
    ("preview", "orders"): "preview: missing option '--flow'; microbatch preview --help says what it takes",
    ("schedule",): "schedule: missing option '--format'; choose from: cron, systemd, kubernetes; ",
    ("preview", "orders", "--flow", "ingest", "-n", "0"): "preview: invalid value for '-n': 0 is not in the range",
    ("quarantine", "list", "orders", "--batch", "x"): "quarantine list: invalid value for '--batch': 'x' is not",
    ("run", "orders", "--accept", "all"): "run: invalid value for '--accept': 'all' is not one of ",
    ("init", "a", "b"): "init: got unexpected extra argument (b)",
    ("report", "order"): "jobs: there is no job order; did you mean orders?",
    ("trace", "orders", "--key", "order_id"): '--key: "order_id" is not COLUMN=VALUE, such as order_id=41',
    ("rewind", "orders"): "--to: is missing; write one such as 2026-03-01T06:00, in UTC",
    ("rewind", "orders", "--to", "yesterday"): "--to: yesterday is not a time; write one such as 2026-03-01T06:00",
    ("maintain", "orders", "--keep-days", "1"): "--keep-days: 1 is not safe beside readers and replays; at least 7",
    ("run", "orders", "--env", "locla"): "conf: there is no environment locla; did you mean local?",
    ("schema", "--file", "jobs"): "schema: invalid value for '--file': 'jobs' is not one of 'job', 'environment'",
}


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_a_wrong_use_is_one_line_and_exit_code_2(house, words: tuple[str, ...]):
    called = house.call(*words)
    assert (called.exit_code, called.stdout) == (2, "")
    (line,) = called.stderr.splitlines()
    assert line.startswith(f"microbatch: {WRONG[words]}")
    assert not Path(house.warehouse).exists()


@pytest.mark.parametrize(("job", "code"), [("order", 2), ("orders", 4)])
def test_for_a_program_that_reads_the_log_every_error_is_an_object(house, job: str, code: int):
    (house.root / "data/landing/orders").mkdir(parents=True, exist_ok=True)
    with held(str(house.root / "data/checkpoints"), "orders"):
        called = house.call("run", job, "--log", "json")
    assert called.exit_code == code
    events = [json.loads(line) for line in called.stderr.splitlines()]
    assert [event["event"] for event in events if event["event"] == "error"] == ["error"]


def test_a_command_that_needs_a_job_says_so_when_none_is_named(house):
    for name in (name for name, command in group.commands.items() if any(p.name == "job" for p in command.params)):
        called = house.call(name)
        if called.exit_code:  # status and report take any number of jobs
            assert called.exit_code == 2
            assert len(called.stderr.splitlines()) == 1, called.stderr


def test_without_a_command_all_are_listed():
    called = CliRunner().invoke(group, [])
    assert called.exit_code == 2
    assert all(f"\n  {name} " in called.stderr for name in group.commands)


def test_a_reader_that_has_seen_enough_is_no_error(house):
    """`microbatch schema | head -1`: no message, and the exit code of a process that SIGPIPE ended."""
    ends = os.pipe()
    os.close(ends[0])
    words = [sys.executable, "-m", "microbatch", "schema"]
    ended = subprocess.run(words, cwd=HERE, stdout=ends[1], stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(ends[1])
    assert (ended.returncode, ended.stderr) == (141, "")
