"""The conf of one thing: the base file with an environment's overlay laid over it, and where each value was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from microbatch.errors import Problem
from microbatch.strictyaml import Document, Key


@dataclass
class Tree:
    """Merged conf.

    Attributes:
        name: the file that messages name where a value has no line: the base file.
        data: the merged mapping.
        origins: path -> `file:line` of the value that won.
        broken: one of the files could not be read, so that nothing can be said about what is missing.
    """

    name: str
    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[tuple[Key, ...], str] = field(default_factory=dict, repr=False)
    broken: bool = False

    def where(self, *path: Key) -> str:
        """The file and line of a key, or of the nearest key around it that some file has."""
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path, self.name)

    def problem(self, path: Sequence[Key], what: str) -> Problem:
        """A problem with the value at a path: `file:line: the.key: what`."""
        return Problem(self.where(*path), f"{dotted(path)}: {what}" if path else what)


def dotted(path: Sequence[Key]) -> str:
    """A path as people write it: `alerts[0].when`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def overlay(name: str, documents: Sequence[Document], problems: list[Problem]) -> Tree:
    """Lay documents over one another, the later one winning: mappings merge, lists and single values replace.

    Args:
        name: the file to name where a value has no line.
        documents: the base first; an empty file changes nothing.
        problems: gets one for each document that is not a mapping.
    """
    tree = Tree(name)
    for document in documents:
        if document.data is None:
            continue
        if not isinstance(document.data, dict):
            problems.append(Problem(document.where(), "must be a mapping of keys to values"))
            tree.broken = True
            continue
        _lay(tree, document, (), tree.data, document.data)
    return tree


def _lay(tree: Tree, document: Document, path: tuple[Key, ...], under: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(under.get(key), dict):
            _lay(tree, document, here, under[key], value)
            continue
        if key in under:
            for stale in [known for known in tree.origins if known[: len(here)] == here]:
                del tree.origins[stale]
        _place(tree, document, here, value)
        under[key] = value


def _place(tree: Tree, document: Document, path: tuple[Key, ...], value: Any) -> None:
    tree.origins[path] = document.where(*path)
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        _place(tree, document, (*path, key), child)
