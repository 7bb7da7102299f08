"""The environment variables that a suite's conf asks for, known without needing them to be set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microbatch.config.files import BASE, ENVIRONMENT, conf_tree
from microbatch.config.interpolate import references_in
from microbatch.errors import Problem


@dataclass(frozen=True)
class Variable:
    """One reference to an environment variable.

    Attributes:
        needed: it has no default.
        where: the file and line.
    """

    name: str
    needed: bool
    where: str

    @property
    def unset(self) -> bool:
        return self.name not in os.environ


def variables(root: Path, env: str, jobs: Iterable[str]) -> list[Variable]:
    """Those that the conf of an environment and of some jobs asks for, by name; of one name the neediest reference.

    Files that cannot be read are passed over: `load` says what is wrong with them.
    """
    found: dict[str, Variable] = {}
    for name in (ENVIRONMENT, *jobs):
        ignored: list[Problem] = []
        tree = conf_tree(root, env, name, ignored)
        for path, value in _texts(tree.data, ()):
            for variable, needed in references_in(value):
                if variable not in found or (needed and not found[variable].needed):
                    found[variable] = Variable(variable, needed, tree.where(*path))
    for folder in (BASE, env):
        lines: list[str] = []
        file = root / "conf" / folder / "spark.conf"
        with suppress(OSError):
            lines = file.read_text("utf-8-sig", errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            for variable, needed in references_in(line.partition("#")[0]):
                found.setdefault(variable, Variable(variable, needed, f"conf/{folder}/spark.conf:{number}"))
    return [found[name] for name in sorted(found)]


def _texts(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield path, value
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _texts(child, (*path, key))
