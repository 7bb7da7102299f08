"""An expectation suite as its author wrote it: read and checked without Spark and without Great Expectations.

The form is Great Expectations' own (`ExpectationSuite` as JSON, or the same as YAML), field for field, so the same file
loads there. What it would drop or change without a word (an unknown type, a misspelt severity) is a mistake here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from microbatch import strictyaml
from microbatch.checks.arguments import faults
from microbatch.checks.catalogue import REFUSED, SUPPORTED, nearest
from microbatch.errors import ConfigError, Problem

SEVERITIES = ("critical", "warning", "info")
SUITE_KEYS = ("name", "expectations", "id", "meta", "notes", "suite_parameters")
ENTRY_KEYS = (
    "type",
    "kwargs",
    "severity",
    "meta",
    "id",
    "notes",
    "description",
    "expectation_context",
    "rendered_content",
)

Line = Callable[..., int | None]


@dataclass(frozen=True)
class Entry:
    """One expectation of a suite.

    Attributes:
        type: as Great Expectations names it, snake_case.
        kwargs: its arguments as written.
        severity: critical where the file says nothing, as in Great Expectations.
        id: what results call it: the id the file gives, or `<suite>/<position>`.
        line: where it starts in the file, from 1; None where nobody wrote it.
        position: its place in the suite, from 1.
        description: the author's own words for it, if any.
    """

    type: str
    kwargs: Mapping[str, Any]
    severity: str
    meta: Mapping[str, Any]
    id: str
    line: int | None
    position: int
    description: str | None = None


@dataclass(frozen=True)
class ExpectationFile:
    """A suite: its name, its path relative to where it was looked for, and what it expects."""

    name: str
    path: str
    entries: tuple[Entry, ...]

    def where(self, entry: Entry) -> str:
        return self.path if entry.line is None else f"{self.path}:{entry.line}"


def read(path: Path, root: Path) -> ExpectationFile:
    """Read `<path>.yml`, `.yaml` or `.json`.

    Args:
        path: the file.
        root: the suite's folder; messages show the file relative to it.

    Raises:
        ConfigError: with every mistake that can be seen without the columns: structure, names, severities, arguments.
    """
    shown = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
    data, line = _json(path, shown) if path.suffix == ".json" else _yaml(path, shown)
    reader = _Reader(shown, line)
    suite = reader.suite(data, default_name=path.stem)
    if reader.problems:
        raise ConfigError(*reader.problems)
    return suite


def _yaml(path: Path, shown: str) -> tuple[Any, Line]:
    document = strictyaml.load(path, shown)
    return document.data, document.line


def _json(path: Path, shown: str) -> tuple[Any, Line]:
    doubled: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        doubled.extend(sorted({key for key in keys if keys.count(key) > 1}))
        return dict(pairs)

    def never(text: str) -> Any:
        raise ConfigError(Problem(shown, f"{text} is not JSON; write a number or null"))

    try:
        text = path.read_text(encoding="utf-8-sig")
        data = json.loads(text, object_pairs_hook=once, parse_constant=never)
    except json.JSONDecodeError as cause:
        raise ConfigError(Problem(f"{shown}:{cause.lineno}", f"is not valid JSON: {cause.msg}")) from cause
    except UnicodeDecodeError as cause:
        raise ConfigError(Problem(shown, "is not UTF-8; save the file as UTF-8")) from cause
    except RecursionError as cause:
        raise ConfigError(Problem(shown, "is nested too deep")) from cause
    except OSError as cause:
        raise ConfigError(Problem(shown, f"cannot be read: {cause.strerror or cause}")) from cause
    if doubled:
        raise ConfigError(*[Problem(shown, f"{key} is there twice in one object; keep one") for key in doubled])
    return data, _lines_of_json(text)


def _lines_of_json(text: str) -> Line:
    """JSON is YAML, and the YAML parser knows where each node stands; a tab is the one thing it does not take."""
    try:
        root = yaml.compose(text.replace("\t", " "), Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        root = None

    def line(*path: str | int) -> int | None:
        node, found = root, 1
        for step in path:
            if isinstance(node, yaml.MappingNode):
                match = next(((key, value) for key, value in node.value if key.value == step), None)
                if match is None:
                    break
                found, node = match[0].start_mark.line + 1, match[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                found = node.start_mark.line + 1
            else:
                break
        return found if root is not None else None

    return line


class _Reader:
    """Goes through a suite once and keeps every problem, not only the first."""

    def __init__(self, shown: str, line: Line) -> None:
        self.shown, self.line = shown, line
        self.problems: list[Problem] = []

    def say(self, what: str, *path: str | int) -> None:
        line = self.line(*path)
        self.problems.append(Problem(self.shown if line is None else f"{self.shown}:{line}", what))

    def suite(self, data: Any, default_name: str) -> ExpectationFile:
        if not isinstance(data, dict):
            self.say("must be a mapping with name and expectations")
            return ExpectationFile(default_name, self.shown, ())
        self._keys(data, SUITE_KEYS)
        name = data.get("name", default_name)
        if not isinstance(name, str) or not name:
            self.say("name must be text", "name")
            name = default_name
        if data.get("suite_parameters"):
            self.say("suite_parameters are not supported; write the values where they are used", "suite_parameters")
        listed = data.get("expectations")
        if not isinstance(listed, list) or not listed:
            self.say("has no expectations; list at least one, or take `expects` out of the flow", "expectations")
            return ExpectationFile(name, self.shown, ())
        found = [self.entry(item, index, name) for index, item in enumerate(listed)]
        entries = tuple(entry for entry in found if entry is not None)
        self._once(entries)
        return ExpectationFile(name, self.shown, entries)

    def _keys(self, data: dict[str, Any], known: tuple[str, ...], *path: str | int) -> None:
        for key in data:
            if key == "expectation_type" and "type" in known:
                self.say("unknown key expectation_type; Great Expectations 1 calls it type", *path, key)
            elif key not in known:
                hint = nearest(str(key), known) or f"; known are {', '.join(known)}"
                self.say(f"unknown key {key}{hint}", *path, key)

    def entry(self, item: Any, index: int, suite: str) -> Entry | None:
        here = ("expectations", index)
        if not isinstance(item, dict):
            self.say("an expectation must be a mapping with type and kwargs", *here)
            return None
        before = len(self.problems)
        self._keys(item, ENTRY_KEYS, *here)
        kind = self._type(item, here)
        kwargs = item.get("kwargs") or {}
        if not isinstance(kwargs, dict):
            self.say("kwargs must be a mapping of the expectation's arguments", *here, "kwargs")
        elif kind in SUPPORTED:
            for key, what in faults(kind, kwargs):
                self.say(f"{kind}: {what}", *here, "kwargs", *((key,) if key else ()))
        severity = self._severity(item, here)
        meta = self._typed(item, "meta", dict, "a mapping", here) or {}
        given_id = self._typed(item, "id", str, "text", here)
        description = self._typed(item, "description", str, "text", here)
        if len(self.problems) > before:
            return None
        known_as = given_id or f"{suite}/{index + 1}"
        return Entry(kind, kwargs, severity, meta, known_as, self.line(*here), index + 1, description)

    def _type(self, item: dict[str, Any], here: tuple[str | int, ...]) -> str:
        kind = item.get("type")
        if not isinstance(kind, str) or not kind:
            if "expectation_type" not in item:
                self.say("an expectation needs a type, for instance expect_column_values_to_not_be_null", *here)
            return ""
        if kind in REFUSED:
            self.say(f"{kind}: {REFUSED[kind]}", *here, "type")
        elif kind not in SUPPORTED:
            snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind).lower()
            self.say(f"unknown type {kind}{nearest(snake, (*SUPPORTED, *REFUSED))}", *here, "type")
        return kind

    def _severity(self, item: dict[str, Any], here: tuple[str | int, ...]) -> str:
        severity = item.get("severity")
        if severity is None:
            return "critical"
        if severity not in SEVERITIES:
            hint = nearest(str(severity), SEVERITIES) or f"; write one of {', '.join(SEVERITIES)}"
            self.say(f"unknown severity {severity}{hint}", *here, "severity")
        return str(severity)

    def _typed(self, item: dict[str, Any], key: str, kind: type, words: str, here: tuple[str | int, ...]) -> Any:
        value = item.get(key)
        if value is not None and not isinstance(value, kind):
            self.say(f"{key} must be {words}", *here, key)
            return None
        return value

    def _once(self, entries: tuple[Entry, ...]) -> None:
        seen: dict[str, Entry] = {}
        ids: dict[str, Entry] = {}
        for entry in entries:
            here = ("expectations", entry.position - 1)
            content = json.dumps([entry.type, entry.kwargs, entry.severity], sort_keys=True, default=str)
            if content in seen:
                self.say(f"{entry.type} is there twice, first on line {seen[content].line}; keep one", *here)
            elif entry.id in ids:
                self.say(f"id {entry.id} is there twice, first on line {ids[entry.id].line}; keep one", *here, "id")
            seen.setdefault(content, entry)
            ids.setdefault(entry.id, entry)
