"""Which files of a suite belong to which job, and what they are together: the version of the suite."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from microbatch.config.interpolate import Interpolation
from microbatch.config.names import NAME_RULE, hint, is_name
from microbatch.config.tree import Tree, overlay
from microbatch.errors import ConfigError, Problem
from microbatch.strictyaml import Document, load

ENVIRONMENT = "environment"
BASE = "base"
DEFAULT_ENV = "local"
_VERSIONED = ("jobs", "transforms", "conf", "expectations")
_PROPERTY = re.compile(r"(?P<key>[^\s=:]+)(?:\s*[=:]\s*|\s+)(?P<value>\S.*)")


def environment_problem(root: Path, env: str) -> Problem | None:
    """Why a suite cannot run in an environment; None where it can. `local` needs no folder."""
    if env != BASE and is_name(env) and (env == DEFAULT_ENV or (root / "conf" / env).is_dir()):
        return None
    folders = root.glob("conf/*/")
    known = {DEFAULT_ENV, *(folder.name for folder in folders if folder.is_dir() and is_name(folder.name))} - {BASE}
    return Problem("conf", f"there is no environment {env}{hint(env, known)}")


def job_files(root: Path, problems: list[Problem]) -> list[Path]:
    """The job files of a suite, by name; a name that no job can have is a problem."""
    files = []
    for file in sorted((root / "jobs").glob("*.py")):
        if file.stem == "__init__":
            continue
        if is_name(file.stem) and file.stem != ENVIRONMENT:
            files.append(file)
        else:
            why = "that is the file of conf for all jobs" if file.stem == ENVIRONMENT else NAME_RULE
            problems.append(Problem(f"jobs/{file.name}", f"a job cannot have the name {file.stem}: {why}"))
    return files


def conf_problems(root: Path, env: str, jobs: Iterable[str]) -> Iterator[Problem]:
    """Files of conf that belong to no job."""
    jobs = sorted(jobs)
    for folder in (BASE, env):
        for file in sorted((root / "conf" / folder).glob("*")):
            place = f"conf/{folder}/{file.name}"
            if file.suffix == ".yaml":
                yield Problem(place, f"is not read: rename it to {file.stem}.yml")
            elif file.suffix == ".yml" and file.stem != ENVIRONMENT and file.stem not in jobs:
                yield Problem(place, f"there is no job jobs/{file.stem}.py{hint(file.stem, jobs)}")


def conf_tree(root: Path, env: str, name: str, problems: list[Problem]) -> Tree:
    """The conf of a job, or `environment`: the base with the environment's overlay, either of which may be missing."""
    documents: list[Document] = []
    unread = False
    for folder in (BASE, env):
        place = f"conf/{folder}/{name}.yml"
        if not _is_there(root / place):
            continue
        try:
            documents.append(load(root / place, place))
        except ConfigError as cause:
            problems.extend(cause.problems)
            unread = True
    tree = overlay(f"conf/{BASE}/{name}.yml", documents, problems)
    tree.broken |= unread
    return tree


def _is_there(file: Path) -> bool:
    """Whether there is such a file; where the folder may not be looked into there may be, and reading it says so."""
    try:
        return file.exists()
    except OSError:
        return True


def expectation_files(root: Path, job: str, problems: list[Problem]) -> dict[str, Path]:
    """The expectation files of a job by name; a name with two endings is a problem."""
    found: dict[str, Path] = {}
    for file in sorted((root / "expectations" / job).glob("*")):
        place = f"expectations/{job}/{file.name}"
        if file.suffix == ".yaml":
            problems.append(Problem(place, f"is not read: rename it to {file.stem}.yml"))
        elif file.suffix in (".yml", ".json"):
            if file.stem in found:
                problems.append(Problem(place, f"{found[file.stem].name} is there too; keep one of them"))
            found[file.stem] = file
    return found


def strangers(root: Path, jobs: Iterable[str]) -> Iterator[Problem]:
    """Expectations that belong to no job."""
    jobs = sorted(jobs)
    for entry in sorted((root / "expectations").glob("*")):
        if entry.is_dir() and entry.name not in jobs and any(entry.glob("*.yml")) | any(entry.glob("*.json")):
            what = f"there is no job jobs/{entry.name}.py{hint(entry.name, jobs)}"
            yield Problem(f"expectations/{entry.name}", what)
        elif entry.suffix in (".yml", ".yaml", ".json"):
            yield Problem(f"expectations/{entry.name}", "belongs to no job: move it to expectations/<job>/")


def spark_conf(root: Path, env: str, references: Interpolation, problems: list[Problem]) -> dict[str, str]:
    """The Spark settings of `spark.conf`, base and environment: `key value` or `key=value` lines, # for comments."""
    settings: dict[str, str] = {}
    for folder in (BASE, env):
        place = f"conf/{folder}/spark.conf"
        if not (root / place).is_file():
            continue
        seen: dict[str, int] = {}
        try:
            lines = (root / place).read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as cause:
            problems.append(Problem(place, _unread(cause)))
            continue
        for number, line in enumerate(lines, start=1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            found = _PROPERTY.fullmatch(text)
            if found is None or not found["key"].startswith("spark."):
                problems.append(Problem(f"{place}:{number}", "is not a Spark setting: write spark.some.key value"))
            elif found["key"] in seen:
                what = f"{found['key']} is there twice, first on line {seen[found['key']]}; keep one"
                problems.append(Problem(f"{place}:{number}", what))
            else:
                seen[found["key"]] = number
                line_of = Tree(f"{place}:{number}")
                settings[found["key"]] = references.apply(line_of, (), found["value"], problems)
    return settings


def version(root: Path) -> str:
    """12 hex digits over the names and the bytes of the files that say what a suite does.

    Raises:
        ConfigError: one of them cannot be read.
    """
    digest = hashlib.sha256()
    for folder in _VERSIONED:
        for file in sorted((root / folder).rglob("*")):
            name = file.relative_to(root)
            if file.is_file() and "__pycache__" not in name.parts and not file.name.startswith("."):
                try:
                    content = file.read_bytes()
                except OSError as cause:
                    raise ConfigError(Problem(name.as_posix(), _unread(cause))) from cause
                digest.update(f"{name.as_posix()}\0{len(content)}\0".encode(errors="surrogateescape"))
                digest.update(content)
    return digest.hexdigest()[:12]


def _unread(cause: OSError | UnicodeDecodeError) -> str:
    if isinstance(cause, UnicodeDecodeError):
        return "is not UTF-8; save it as UTF-8"
    return f"cannot be read: {cause.strerror or cause}"
