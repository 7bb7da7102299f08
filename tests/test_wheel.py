"""The wheel is the product: what a new user types, in an environment that has the wheel and not this repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.releases import environment, release, without_repository

pytestmark = pytest.mark.slow  # builds a wheel, and starts processes with a JVM each
JARS = Path(__file__).resolve().parents[1] / ".jars"


@pytest.fixture(scope="module")
def bin_(tmp_path_factory) -> Path:
    return environment(tmp_path_factory.mktemp("wheel") / "env")


def test_from_an_empty_folder_to_one_s_own_job_with_passing_tests_in_four_commands(bin_, tmp_path):
    """Beside them, once: `pip install` of the wheel."""
    env = without_repository(PATH=f"{bin_}{os.pathsep}{os.environ['PATH']}", MICROBATCH_JARS=str(JARS))

    def typed(command: str, cwd: Path) -> str:
        done = subprocess.run(
            ["bash", "-c", command], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert str(bin_.parent) in typed("python -c 'import microbatch; print(microbatch.__file__)'", tmp_path)
    typed("microbatch init shop", tmp_path)
    shop = tmp_path / "shop"
    assert "orders.keep_orders  done" in typed("microbatch run orders", shop)
    typed("microbatch new returns", shop)
    assert "4 passed" in typed("pytest -q tests/jobs/test_returns.py tests/transforms/test_returns.py", shop)


def test_a_release_names_the_bytes_it_is_made_of():
    done = subprocess.run(["sha256sum", "--check", "--quiet", "MANIFEST"], cwd=release(), check=False)
    assert done.returncode == 0
    listed = {line.split(maxsplit=1)[1] for line in (release() / "MANIFEST").read_text().splitlines()}
    there = {f"./{file.relative_to(release())}" for file in release().rglob("*") if file.is_file()}
    assert listed == there - {"./MANIFEST"}


def test_a_release_holds_the_suite_the_engine_twice_and_the_jars_and_no_leftovers():
    names = {str(file.relative_to(release())) for file in release().rglob("*")}
    assert {"run.py", "jobs/daily_sales.py", "transforms/sales.py", "conf/cluster/spark.conf"} <= names
    assert sum(name.startswith("microbatch-") and name.endswith((".whl", ".zip")) for name in names) == 2
    assert any(name.startswith("jars/delta-spark_") for name in names)
    assert not any("__pycache__" in name for name in names)
