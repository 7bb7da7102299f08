"""YAML without surprises: what a file says is what a program gets, and the line of every key is known.

No anchors, aliases, tags, doubled keys, keys that are not text, or second documents. Scalars follow the core schema of
YAML 1.2: `on`, `yes`, `12:30` and `2024-01-01` are text; quotes always make text.

Source:
    YAML 1.2.2, section 10.3.2 (tag resolution of the core schema), without octal and hexadecimal numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from microbatch.errors import ConfigError, Problem

LARGEST_BYTES = 1_000_000
DEEPEST = 50
MOST_PROBLEMS = 20  # more in one file is not somebody's slip, and nobody reads on
LONGEST_INT = 400  # digits; Python itself refuses 4,300, and no honest number comes near either

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is ten times faster, but not in every build
_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"(?P<true>true|True|TRUE)|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

Key = str | int


@dataclass(frozen=True)
class Document:
    """A YAML file that was read.

    Attributes:
        name: the file as messages show it.
        data: dicts, lists, text, numbers, booleans and None; None for an empty file.
        lines: the line [from 1] of each key and list item, by its path.
    """

    name: str
    data: Any
    lines: dict[tuple[Key, ...], int] = field(repr=False)

    def line(self, *path: Key) -> int:
        """The line of a key, or of the nearest key around it that the file has."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def where(self, *path: Key) -> str:
        """The file and line of a key, as a `Problem` wants it."""
        return f"{self.name}:{self.line(*path)}"


def load(path: Path, name: str | None = None) -> Document:
    """Read a file.

    Args:
        path: UTF-8, at most 1 MB, nested at most 50 deep.
        name: what messages call the file, usually its path relative to the suite; the path itself if omitted.

    Raises:
        ConfigError: with every problem of the file, each with its line.
    """
    name = name or str(path)
    return _Builder(name, _text(path, name)).build()


def _text(path: Path, name: str) -> str:
    try:
        if not path.is_file():
            raise ConfigError(Problem(name, "there is no such file"))
        if path.stat().st_size > LARGEST_BYTES:
            raise ConfigError(Problem(name, f"is larger than {LARGEST_BYTES // 1_000_000} MB; split it"))
        content = path.read_bytes()
    except OSError as cause:
        raise ConfigError(Problem(name, f"cannot be read: {cause.strerror or cause}")) from cause
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        line = content.count(b"\n", 0, cause.start) + 1
        raise ConfigError(Problem(f"{name}:{line}", "is not UTF-8; save the file as UTF-8")) from cause


@dataclass
class _Open:
    """A mapping or list whose end has not come yet."""

    container: dict[str, Any] | list[Any]
    path: tuple[Key, ...]
    key: str | None = None  # of a mapping: the key whose value comes next
    spoilt: bool = False  # the value to come belongs to a key that cannot be kept
    flow: bool = False  # written with braces, where YAML ends plain text at every comma
    last: tuple[str, Any] | None = None  # the key and the parser's event of the plain value that came last


class _Builder:
    """Builds the data from parser events with its own stack: nesting cannot exhaust Python's."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text
        self.lines: dict[tuple[Key, ...], int] = {}
        self.problems: list[Problem] = []
        self.stack: list[_Open] = []
        self.data: Any = None
        self.documents = 0

    def build(self) -> Document:
        try:
            for event in self._events():
                self._take(event, event.start_mark.line + 1)
        except yaml.YAMLError as cause:
            self._say(*self._syntax(cause))
        except _GivenUp:
            pass  # the reason is among the problems
        if self.problems:
            raise ConfigError(*self.problems)
        return Document(self.name, self.data, self.lines)

    def _events(self) -> Iterator[Any]:
        return iter(yaml.parse(self.text, Loader=_LOADER))

    def _say(self, line: int, what: str) -> None:
        self.problems.append(Problem(f"{self.name}:{line}", what))
        if len(self.problems) >= MOST_PROBLEMS:
            raise _GivenUp

    def _syntax(self, cause: yaml.YAMLError) -> tuple[int, str]:
        mark = getattr(cause, "problem_mark", None) or getattr(cause, "context_mark", None)
        if mark is None:  # a character that YAML does not allow; only its position is known
            position = getattr(cause, "position", 0) or 0  # in bytes, where the C parser says it
            before = self.text.encode()[:position] if _LOADER is not yaml.SafeLoader else self.text[:position].encode()
            return before.count(b"\n") + 1, "holds a control character that YAML does not allow"
        lines = self.text.splitlines()
        tab = mark.line < len(lines) and "\t" in lines[mark.line]
        reason = getattr(cause, "problem", None) or getattr(cause, "context", None)
        return mark.line + 1, f"is not valid YAML: {reason}{'; indent with spaces, not with tabs' if tab else ''}"

    def _take(self, event: Any, line: int) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self._say(line, "a second document starts here; a file holds one")
                raise _GivenUp
        elif isinstance(event, yaml.AliasEvent):
            self._say(line, f"aliases are not allowed: write the value of *{event.anchor} out")
            self._put("", line)
        elif isinstance(event, yaml.NodeEvent):
            self._refuse_decoration(event, line)
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event, line)
            else:
                self._open(
                    {} if isinstance(event, yaml.MappingStartEvent) else [],
                    line,
                    bool(getattr(event, "flow_style", False)),
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            self.stack.pop()

    def _refuse_decoration(self, event: Any, line: int) -> None:
        if event.anchor is not None:
            self._say(line, f"anchors are not allowed: write the value where it is used, without &{event.anchor}")
        if getattr(event, "tag", None) is not None:
            self._say(line, f"tags are not allowed: leave out {event.tag[:60]}")

    def _scalar(self, event: Any, line: int) -> None:
        plain = event.style in (None, "")
        top = self.stack[-1] if self.stack else None
        if top is not None and top.flow and plain and self._continues(top, event):
            return
        try:
            value = _resolve(event.value) if plain else event.value
        except ValueError as cause:
            self._say(line, str(cause))
            value = None
        is_value = top is not None and top.key is not None
        path = self._put(value, line, event.value)
        if top is not None and top.flow and is_value:
            top.last = (str(path[-1]), event) if plain else None

    def _continues(self, top: _Open, event: Any) -> bool:
        """Whether this is the rest of a number with commas, as in `{volume: about 4,000 rows}`.

        YAML reads `000 rows` as a key without a value there. A comma with no blank behind it, and no colon before the next
        comma or brace, can mean nothing else than the text that somebody wrote.
        """
        if top.spoilt and top.key == "":  # the empty value that YAML adds to such a key
            top.key, top.spoilt = None, False
            return True
        if top.key is not None or top.last is None or not isinstance(top.container, dict):
            return False
        key, before = top.last
        row = self.text.splitlines()[event.start_mark.line]
        start, end = event.start_mark.column, event.end_mark.column
        apart = (event.start_mark.line, start - 1) != (before.end_mark.line, before.end_mark.column)
        if apart or row[start - 1] != "," or row[end:].lstrip().startswith(":"):
            return False
        top.container[key] = row[before.start_mark.column : end]
        before.end_mark = event.end_mark
        top.key, top.spoilt = "", True
        return True

    def _open(self, container: dict[str, Any] | list[Any], line: int, flow: bool) -> None:
        path = self._put(container, line)
        self.stack.append(_Open(container, path, flow=flow))
        if len(self.stack) > DEEPEST:
            self._say(line, f"is nested more than {DEEPEST} deep")
            raise _GivenUp

    def _put(self, value: Any, line: int, written: str = "") -> tuple[Key, ...]:
        """Put a value (or the key of the value to come) where the parser stands; returns the value's path."""
        if not self.stack:
            self.data = value
            self.lines[()] = line
            return ()
        top = self.stack[-1]
        if isinstance(top.container, list):
            top.container.append(value)
            path = (*top.path, len(top.container) - 1)
            self.lines[path] = line
            return path
        if top.key is None:
            self._key(top, value, line, written)
            return (*top.path, top.key or "")
        path = (*top.path, top.key)
        if not top.spoilt:
            top.container[top.key] = value
        top.key = None
        return path

    def _key(self, top: _Open, value: Any, line: int, written: str) -> None:
        top.key = value if isinstance(value, str) else written
        path = (*top.path, top.key)
        doubled = top.key in top.container
        top.spoilt = doubled or not isinstance(value, str)
        if isinstance(value, dict | list):
            self._say(line, "a key must be text, not a list or a mapping")
        elif not isinstance(value, str):
            self._say(line, f'a key must be text: write "{written}" in quotes')
        elif doubled:
            self._say(line, f"{top.key} is there twice, first on line {self.lines[path]}; keep one")
        else:
            self.lines[path] = line


class _GivenUp(Exception):
    """The rest of the file is not worth reading."""


def _resolve(text: str) -> Any:
    """The value of a scalar without quotes."""
    if _NULL.fullmatch(text):
        return None
    if boolean := _BOOL.fullmatch(text):
        return boolean["true"] is not None
    if _INT.fullmatch(text):
        if len(text) > LONGEST_INT:
            raise ValueError(f"a number of {len(text)} digits; write it in quotes if it is text")
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
