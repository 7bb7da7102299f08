"""A small session for the checks: nothing here needs Delta."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from microbatch import checks
from microbatch.checks import ExpectationFile


@pytest.fixture
def suite(tmp_path: Path) -> Callable[..., ExpectationFile]:
    """Writes a suite named `sales` of the expectations given and reads it: each (type, kwargs) or a whole mapping."""

    def make(*expectations: Any) -> ExpectationFile:
        listed = [e if isinstance(e, dict) else {"type": e[0], "kwargs": e[1]} for e in expectations]
        path = tmp_path / "sales.yml"
        path.write_text(
            yaml.safe_dump(json.loads(json.dumps({"name": "sales", "expectations": listed})), sort_keys=False)
        )
        return checks.read(path, tmp_path)

    return make
