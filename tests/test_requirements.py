"""What the engine imports is what the wheel asks for: tests have more installed than its users."""

from __future__ import annotations

import ast
import configparser
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).resolve().parents[1]
# Part of one that is asked for: it cannot be had without them.
BROUGHT = {"pydantic_core": "pydantic", "py4j": "pyspark", "adbc_driver_manager": "adbc-driver-postgresql"}
WITH_TESTS = {"pytest"}  # the test kit is loaded by pytest itself


def imported() -> set[str]:
    """The top-level packages that any module of the engine imports, wherever in it."""
    found = set()
    for file in (HERE / "microbatch").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"microbatch"}


def test_what_the_engine_imports_is_what_the_wheel_asks_for():
    setup = configparser.ConfigParser()
    setup.read(HERE / "setup.cfg")
    lines = setup["options"]["install_requires"].splitlines()
    asked = {canonicalize_name(Requirement(line).name) for line in lines if line and not line.startswith("#")}
    of = metadata.packages_distributions()
    for package in imported() - WITH_TESTS:
        names = {canonicalize_name(name) for name in of[package]} | {BROUGHT.get(package, "")}
        assert names & asked, f"{package} is imported and not in install_requires"
