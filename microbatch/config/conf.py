"""Reading `conf/`: the environment, and the conf of each job. What is written there is checked here, by itself."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from microbatch.config.files import ENVIRONMENT, conf_tree
from microbatch.config.interpolate import Interpolation
from microbatch.config.models import ROOTS, Alert, Environment, JobConf
from microbatch.config.names import NAME_RULE, hint, is_name
from microbatch.config.tree import Tree
from microbatch.config.validate import Where, validate, validate_sources
from microbatch.config.values import resolved
from microbatch.errors import Problem

ALMOST = 0.8  # a slip or two: a root that only another environment uses is not refused for a name that is a little like
_SHARED = ("connections", "channels")  # what a job that does not use them need not have


class ReadConf(NamedTuple):
    """The conf of a job, and where each of its keys was written. An empty `conf` stands for one with problems."""

    conf: JobConf
    tree: Tree
    source_names: frozenset[str]


class ConfReader:
    """Reads the conf of one suite in one environment.

    Args:
        root: the suite, absolute.
        storage: roots that replace those that are written down.
        problems: gets all that is wrong.

    Attributes:
        references: what was looked up; holds the secrets.
        environment: complete after `read_environment`.
    """

    def __init__(self, root: Path, env: str, storage: Mapping[str, str], problems: list[Problem]) -> None:
        self.root, self.env, self.storage, self.problems = root, env, storage, problems
        self.references = Interpolation()
        self.environment = Environment(storage={})
        self._broken = False
        self._roots_of = Tree(ENVIRONMENT)
        self._declared: dict[str, set[str]] = {kind: set() for kind in _SHARED}
        self._unresolved: dict[tuple[str, str], list[Problem]] = {}

    def read_environment(self) -> None:
        """Read `environment.yml`; one that is not there is all defaults."""
        tree = conf_tree(self.root, self.env, ENVIRONMENT, self.problems)
        self._broken = tree.broken
        roots = self._roots(tree)
        self.references.roots = roots
        self.references.start()
        data: dict[str, Any] = {}
        for key, value in tree.data.items():
            if key in _SHARED and isinstance(value, dict):
                data[key] = self._shared(tree, key, value)
            elif key != "storage":
                data[key] = self.references.apply(tree, (key,), value, self.problems)
        data = {key: value for key, value in data.items() if value is not None} | {"storage": roots}
        read = validate(Environment, data, tree, self.problems, root=self.root, references=self.references)
        self.environment = read or Environment(storage=roots)

    def _roots(self, tree: Tree) -> dict[str, str]:
        self._roots_of, written = tree, tree.data.get("storage") or {}
        if not isinstance(written, dict):
            self.problems.append(tree.problem(("storage",), "must be a mapping of root names to paths"))
            written = {}
        paths = {name: f"data/{name}" for name in ROOTS}
        for name, path in written.items():
            if name in self.storage:
                continue
            if not is_name(name) or name == "env":
                self.problems.append(tree.problem(("storage", name), f"is not a name for a root: {NAME_RULE}"))
            elif not isinstance(path, str) or not path.strip():
                self.problems.append(tree.problem(("storage", name), "must be a path, as text"))
            else:
                paths[name] = self.references.apply(tree, ("storage", name), path, self.problems)
        return {name: resolved(path, self.root) for name, path in {**paths, **self.storage}.items()}

    def refuse_misspelt_roots(self) -> None:
        """A root that nothing refers to, and that is spelt almost like one that is not written: its data would go elsewhere."""
        written = {*(self._roots_of.data.get("storage") or ())}
        for name in sorted(written - {*ROOTS} - self.references.used):
            if near := difflib.get_close_matches(name, {*ROOTS} - written, n=1, cutoff=ALMOST):
                what = f"no value refers to ${{{name}}}; did you mean {near[0]}?"
                self.problems.append(self._roots_of.problem(("storage", name), what))

    def _shared(self, tree: Tree, kind: str, entries: dict[str, Any]) -> dict[str, Any]:
        """The connections or channels that can be resolved; the others are a problem only once a job uses them."""
        found = {}
        for name, entry in entries.items():
            self._declared[kind].add(name)
            problems: list[Problem] = []
            value = self.references.apply(tree, (kind, name), entry, problems)
            if problems:
                self._unresolved[kind, name] = problems
            else:
                found[name] = value
        return found

    def use(self, kind: str, name: str, tree: Tree, path: Where) -> None:
        """Note that a job uses a connection or a channel; one that is not there, or not resolved, is a problem."""
        if name not in self._declared[kind] and not self._broken:
            near = hint(name, self._declared[kind])
            shown = "such name" if path in self.references.tainted else name
            self.problems.append(tree.problem(path, f"conf/base/{ENVIRONMENT}.yml has no {shown} under {kind}{near}"))
        self.problems.extend(self._unresolved.get((kind, name), ()))

    def read_job(self, name: str) -> ReadConf:
        """Read the conf of a job; one that is not there is all defaults."""
        tree = conf_tree(self.root, self.env, name, self.problems)
        self.references.start()
        data = self.references.apply(tree, (), tree.data, self.problems)
        written = data.pop("sources", None) or {}
        tree.broken |= not isinstance(written, dict)
        sources = validate_sources(written, tree, self.problems, root=self.root, references=self.references)
        read = validate(JobConf, data, tree, self.problems, root=self.root, references=self.references)
        conf = (read or JobConf()).model_copy(update={"sources": sources})
        self._refuse_twice(conf.alerts, tree)
        for kind, used, path in (*_channels(data.get("alerts")), *_connections(written)):
            self.use(kind, used, tree, path)
        for source, each in sources.items():
            found = self.environment.connections.get(getattr(each, "connection", None) or "")
            if found and (what := each.lacks(found)):
                self.problems.append(tree.problem(("sources", source, "connection"), what))
        return ReadConf(conf, tree, frozenset(written) if isinstance(written, dict) else frozenset())

    def _refuse_twice(self, alerts: Sequence[Alert], tree: Tree) -> None:
        """Each alert has a state of its own, by what `Alert.key` holds."""
        first: dict[tuple[str, str], int] = {}
        for at, alert in enumerate(alerts):
            before = first.setdefault(alert.key, at)
            if before != at:
                what = f"is in alerts[{before}] already, with the same severity; list all channels in one notify"
                self.problems.append(tree.problem(("alerts", at, "when"), what))


# Both look at what is written, not at the records: a mistake beside it must not hide that a name stands for nothing.


def _channels(alerts: Any) -> Iterator[tuple[str, str, Where]]:
    for at, alert in enumerate(alerts if isinstance(alerts, list) else ()):
        notify = alert.get("notify") if isinstance(alert, dict) else None
        for position, name in enumerate(notify if isinstance(notify, list) else ()):
            if isinstance(name, str):
                yield "channels", name, ("alerts", at, "notify", position)


def _connections(sources: Any) -> Iterator[tuple[str, str, Where]]:
    for source, given in sources.items() if isinstance(sources, dict) else ():
        name = given.get("connection") if isinstance(given, dict) else None
        if isinstance(name, str):
            yield "connections", name, ("sources", source, "connection")
