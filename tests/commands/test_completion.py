"""What the shell offers: commands, options, and the jobs and environments of the suite."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def offered(cwd, *words: str) -> list[str]:
    """What bash would be given for a line that ends with the last word."""
    env = {
        **os.environ,
        "_MICROBATCH_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("microbatch", *words)),
        "COMP_CWORD": str(len(words)),
    }
    program = "from microbatch.cli import group; group(prog_name='microbatch')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.fixture
def suite(tmp_path):
    for file in ("jobs/orders.py", "jobs/offers.py", "jobs/__init__.py", "conf/base/x.yml", "conf/prod/x.yml"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    return tmp_path


def test_commands_are_offered(suite):
    assert {"doctor"} == set(offered(suite, "doc")) - {"docs"}


def test_the_jobs_of_the_suite_are_offered_and_none_twice(suite):
    assert offered(suite, "run", "") == ["offers", "orders"]
    assert offered(suite, "run", "orders", "o") == ["offers"]
    assert offered(suite, "audit", "or") == ["orders"]


def test_the_suite_that_is_named_counts(suite, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert offered(elsewhere, "run", "") == []
    assert offered(elsewhere, "run", "--suite", str(suite), "o") == ["offers", "orders"]


def test_environments_are_offered(suite):
    assert offered(suite, "run", "--env", "") == ["local", "prod"]


def test_a_new_job_s_name_is_not_one_that_is_there(suite):
    assert offered(suite, "new", "o") == []
