"""`${landing}`, `${env:NAME}` and `${env:NAME:-default}` inside the values of conf.

A value that came from the environment may be a secret. It is remembered, so that it can be cut out of every text that
leaves the process, and the path it went to is remembered, so that no message about that path shows what is there.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from microbatch import errors
from microbatch.config.names import hint
from microbatch.config.tree import Tree
from microbatch.errors import Problem
from microbatch.strictyaml import Key

SHORTEST_SECRET = 4  # cutting anything shorter out of a log would cut it to pieces
_REFERENCE = re.compile(r"\$\{(?P<inside>[^}]*)\}")
_ENVIRONMENT = re.compile(r"env:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<given>:-(?P<default>.*))?", re.DOTALL)


@dataclass
class Interpolation:
    """Replaces references, and remembers what it saw.

    Args:
        roots: storage roots by name; None while the roots themselves are being read.

    Attributes:
        secrets: what came from the environment and is long enough to be cut out of texts.
        tainted: paths (of the tree read last) whose value holds something from the environment.
        failed: paths (of the tree read last) whose value holds a reference that stands for nothing.
        used: the storage roots that some value refers to.
    """

    roots: Mapping[str, str] | None = None
    secrets: set[str] = field(default_factory=set)
    tainted: set[tuple[Key, ...]] = field(default_factory=set)
    failed: set[tuple[Key, ...]] = field(default_factory=set)
    used: set[str] = field(default_factory=set)

    def start(self) -> None:
        """Forget the paths: another tree comes. The secrets stay."""
        self.tainted, self.failed = set(), set()

    def apply(self, tree: Tree, path: tuple[Key, ...], value: Any, problems: list[Problem]) -> Any:
        """The value with every reference in it replaced, mappings and lists all the way down."""
        if isinstance(value, dict):
            return {key: self.apply(tree, (*path, key), child, problems) for key, child in value.items()}
        if isinstance(value, list):
            return [self.apply(tree, (*path, at), child, problems) for at, child in enumerate(value)]
        return self._text(tree, path, value, problems) if isinstance(value, str) else value

    def _text(self, tree: Tree, path: tuple[Key, ...], text: str, problems: list[Problem]) -> str:
        def replaced(found: re.Match[str]) -> str:
            try:
                return self._look_up(found["inside"], path)
            except _Unresolved as cause:
                problems.append(tree.problem(path, str(cause)))
                self.failed.add(path)
                return ""

        result = _REFERENCE.sub(replaced, text)
        if "${" in _REFERENCE.sub("", text):
            problems.append(tree.problem(path, "has a ${ without its }"))
        if leaving := self._left_root(text, result):
            problems.append(tree.problem(path, f"leaves the storage root {leaving}; take the .. out"))
        return result

    def _look_up(self, inside: str, path: tuple[Key, ...]) -> str:
        if "${" in inside:
            raise _Unresolved("one ${...} cannot stand inside another")
        if inside.startswith("env:"):
            return self._environment(inside, path)
        if self.roots is None:
            raise _Unresolved(f"a storage root is built from ${{env:NAME}} and plain text only, not from ${{{inside}}}")
        if inside not in self.roots:
            raise _Unresolved(f"there is no storage root {inside}{hint(inside, self.roots)}")
        self.used.add(inside)
        return self.roots[inside]

    def _environment(self, inside: str, path: tuple[Key, ...]) -> str:
        reference = _ENVIRONMENT.fullmatch(inside)
        if reference is None:
            raise _Unresolved(f"${{{inside.partition(':-')[0]}}} is neither ${{env:NAME}} nor ${{env:NAME:-default}}")
        name = reference["name"]
        value = os.environ.get(name)
        if reference["given"] and not value:  # as in a shell, an empty variable takes the default too
            return reference["default"]
        if value is None:
            raise _Unresolved(
                f"the environment variable {name} is not set; set it, or give a default: ${{env:{name}:-default}}"
            )
        self.tainted.add(path)
        if self.roots is not None:  # the place of a storage root is no secret: messages must be able to name files
            self.secrets |= secrets_in(value)
        return value

    def _left_root(self, text: str, result: str) -> str | None:
        first = _REFERENCE.match(text)
        if self.roots is None or first is None or first["inside"] not in self.roots or ".." not in result:
            return None
        root = posixpath.normpath(self.roots[first["inside"]])
        inside = posixpath.normpath(result)
        return None if inside == root or inside.startswith(root.rstrip("/") + "/") else first["inside"]


class _Unresolved(Exception):
    """A reference that stands for nothing; the text says why."""


def references_in(text: str) -> list[tuple[str, bool]]:
    """The environment variables that a text refers to, each with whether it is needed: it has no default."""
    inner = (_ENVIRONMENT.fullmatch(found["inside"]) for found in _REFERENCE.finditer(text))
    return [(found["name"], found["given"] is None) for found in inner if found]


def secrets_in(value: str) -> set[str]:
    """What must not be shown of a value: itself, with and without blanks around it, and, where it is a URI, its password, as
    written and decoded."""
    try:
        password = urlsplit(value).password or ""
    except ValueError:
        password = ""
    return {part for part in (value, value.strip(), password, unquote(password)) if len(part) >= SHORTEST_SECRET}


def redacted(problems: Iterable[Problem], secrets: Iterable[str]) -> list[Problem]:
    """The problems with every secret cut out of their text."""
    known = list(secrets)
    return [Problem(problem.where, errors.redacted(problem.what, known)) for problem in problems]
