"""A real Airflow, in an environment of its own, over a copy of this suite with a small landing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import small_sales

HERE = Path(__file__).resolve().parents[2]
PYTHON = HERE / ".airflow" / "bin" / "python"

Airflow = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def airflow_python() -> Path:
    """Airflow's own Python; made where it is missing."""
    if not PYTHON.exists():
        made = subprocess.run(
            ["make", "--silent", "airflow", f"PYTHON={sys.executable}"],
            cwd=HERE,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            told = f"Airflow could not be installed; `make airflow` makes this test run: {made.stderr[-300:]}"
            if os.environ.get("CI") == "true":
                pytest.fail(told)
            pytest.skip(told)
    return PYTHON


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This suite, copied, with three days landed."""
    root = tmp_path_factory.mktemp("dags") / "suite"
    for room in ("jobs", "transforms", "conf", "expectations"):
        shutil.copytree(HERE / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
    small_sales.land(root / "data" / "landing")
    return root


@pytest.fixture(scope="session")
def airflow(airflow_python: Path, suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    """Runs Airflow's Python with arguments; keyword arguments are further environment variables."""
    home = tmp_path_factory.mktemp("airflow")
    plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env = {
        **plain,
        "PATH": f"{airflow_python.parent}{os.pathsep}{plain['PATH']}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
        "MICROBATCH_SUITE": str(suite),
        "MICROBATCH_COMMAND": f"env PYTHONPATH={HERE} MICROBATCH_JARS={HERE / '.jars'} {sys.executable} -m microbatch",
    }

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(airflow_python), *arguments],
            env={**env, **variables},
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    migrated = run("-m", "airflow", "db", "migrate")
    assert migrated.returncode == 0, migrated.stderr[-2000:]
    return run
