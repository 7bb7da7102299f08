"""Reading a suite: its conf, its jobs, its expectations, and every mistake in them, before Spark is started."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from microbatch.config import files
from microbatch.config.conf import ConfReader, ReadConf
from microbatch.config.flows import rule_problems, shape_problems
from microbatch.config.interpolate import redacted
from microbatch.config.modules import run_jobs
from microbatch.config.names import hint, nearest
from microbatch.config.suite import LoadedJob, Suite
from microbatch.config.tables import Placed, suite_problems
from microbatch.errors import ConfigError, Problem
from microbatch.job import Job, Source, in_order
from microbatch.places import connect

if TYPE_CHECKING:
    from microbatch.checks import ExpectationFile


def load(root: Path, env: str = files.DEFAULT_ENV, *, storage: Mapping[str, str] | None = None) -> Suite:
    """Load the suite in a folder, for an environment. Writes nothing, starts no Spark.

    Args:
        root: the folder with `jobs/ transforms/ conf/ expectations/`.
        env: the folder under `conf` whose files lie over those of `conf/base`.
        storage: storage roots that replace those of the environment, by name.

    Raises:
        ConfigError: with every mistake that was found, in conf, jobs, transforms and expectations.
    """
    root = Path(root).resolve()
    try:
        return _load(root, env, storage or {})
    except OSError as cause:  # of a folder or a file of the suite that nobody may read
        if not cause.filename or not Path(cause.filename).is_relative_to(root):
            raise
        place = str(Path(cause.filename).relative_to(root))
        raise ConfigError(Problem(place, f"cannot be read: {cause.strerror}")) from cause


def _load(root: Path, env: str, storage: Mapping[str, str]) -> Suite:
    if not (root / "jobs").is_dir():
        raise ConfigError(
            Problem("jobs", f"there is no such folder in {root}; name the folder of a suite with --suite")
        )
    if problem := files.environment_problem(root, env):
        raise ConfigError(problem)
    problems: list[Problem] = []
    reader = ConfReader(root, env, storage, problems)
    reader.read_environment()
    spark_conf = files.spark_conf(root, env, reader.references, problems)
    jobs = _jobs(root, env, reader, problems)
    reader.refuse_misspelt_roots()
    secrets = sorted(reader.references.secrets, key=lambda secret: (-len(secret), secret))
    if problems:
        raise ConfigError(*redacted(problems, secrets))
    connect(spark_conf)
    return Suite(root, env, files.version(root), reader.environment, jobs, spark_conf, tuple(secrets))


def _jobs(root: Path, env: str, reader: ConfReader, problems: list[Problem]) -> dict[str, LoadedJob]:
    paths = files.job_files(root, problems)
    names = [path.stem for path in paths]
    problems += files.conf_problems(root, env, names)
    problems += files.strangers(root, names)
    modules = run_jobs(root, paths, problems)
    declared = {path.stem: _Declared(path, modules.get(path.stem), problems) for path in paths}
    placed = [each for job in declared.values() for each in job.placed]
    problems += suite_problems(placed, complete=all(job.complete for job in declared.values()))
    return {name: _job(root, job, reader, problems) for name, job in declared.items()}


class _Declared:
    """What a job file declares: the flows that are well formed, each with its place.

    Attributes:
        complete: whether these are all flows of the file; if not, nothing can be said about what is missing.
    """

    def __init__(self, path: Path, module: ModuleType | None, problems: list[Problem]) -> None:
        self.path, self.name = path, path.stem
        self.doc = inspect.cleandoc(module.__doc__ or "") if module else ""
        self.placed: list[Placed] = []
        self.complete = False
        if module is not None and (job := self._found(module, problems)):
            self._place(job, problems)

    def _found(self, module: ModuleType, problems: list[Problem]) -> Job | None:
        job = getattr(module, "JOB", None)
        place = f"jobs/{self.path.name}"
        if isinstance(job, Job) and job.flows:
            return job
        if isinstance(job, Job):
            problems.append(Problem(place, "the job has no flows; write JOB = Job(Flow(...), ...)"))
        elif "JOB" in vars(module):
            problems.append(
                Problem(place, f"JOB is not a Job but of type {type(job).__name__}; write JOB = Job(Flow(...), ...)")
            )
        else:
            other = next((name for name, value in vars(module).items() if isinstance(value, Job)), None)
            remedy = f"rename {other} to JOB" if other else "write JOB = Job(Flow(...), ...)"
            problems.append(Problem(place, f"declares no JOB; {remedy}"))
        return None

    def _place(self, job: Job, problems: list[Problem]) -> None:
        text = self.path.read_text("utf-8", errors="replace")
        seen: set[str] = set()
        self.complete = True
        for flow in job.flows:
            each = Placed(self.name, flow, f"jobs/{self.path.name}{_line(text, flow.name, str(flow.name) in seen)}")
            wrong = shape_problems(flow)
            problems += [each.problem(what) for what in wrong or rule_problems(flow)]
            if not wrong and flow.name in seen:
                problems.append(each.problem("another flow of this job has the same name; rename one"))
            seen.add(str(flow.name))
            if wrong:
                self.complete = False
            else:
                self.placed.append(each)


def _line(text: str, name: object, again: bool) -> str:
    """`:line` of a flow's name in its file, or of its second place; empty where the name is not written out."""
    found = list(re.finditer(rf"\bFlow\(\s*(?:name\s*=\s*)?([\"']){re.escape(str(name))}\1", text))
    found = found or list(re.finditer(rf"([\"']){re.escape(str(name))}\1", text))
    if not found:
        return ""
    place = found[min(int(again), len(found) - 1)]
    return f":{text.count(chr(10), 0, place.start(1)) + 1}"


def _job(root: Path, job: _Declared, reader: ConfReader, problems: list[Problem]) -> LoadedJob:
    read = reader.read_job(job.name)
    _check_sources(root, job, read, reader, problems)
    expectations = _expectations(root, job, problems)
    flows = [each.flow for each in job.placed]
    with contextlib.suppress(ValueError):  # a cycle of tables, which is among the problems by now
        flows = list(in_order(flows))
    return LoadedJob(job.name, job.doc, job.path, tuple(flows), read.conf, expectations)


def _check_sources(root: Path, job: _Declared, read: ReadConf, reader: ConfReader, problems: list[Problem]) -> None:
    """Each source of the job has conf, and each source of the conf a reader."""
    if read.tree.broken:
        return
    reading: dict[str, Placed] = {}
    for each in job.placed:
        if isinstance(each.flow.reads, Source):
            reading.setdefault(each.flow.reads.name, each)
    place = f"conf/base/{job.name}.yml"
    if reading and not read.tree.origins and not (root / place).exists():
        unclaimed = [file.stem for file in (root / "conf" / "base").glob("*.y*ml") if file.stem != files.ENVIRONMENT]
        near = nearest(job.name, set(unclaimed) - {job.name})
        what = f"there is no such file; say under sources where {', '.join(reading)} of jobs/{job.name}.py is"
        problems.append(Problem(place, f"{what}{f'; did you mean it by {near}.yml?' if near else ''}"))
        return
    for name in sorted(set(reading) - read.source_names):
        near = hint(name, read.source_names)
        problems.append(reading[name].problem(f"{place} has no {name} under sources{near}"))
    for name in sorted(read.source_names - set(reading)) if job.complete else ():
        what = f"no flow of jobs/{job.name}.py reads it{hint(name, reading, listed='they read')}"
        problems.append(read.tree.problem(("sources", name), what))


def _expectations(root: Path, job: _Declared, problems: list[Problem]) -> dict[str, ExpectationFile]:
    found = files.expectation_files(root, job.name, problems)
    wanted: dict[str, list[Placed]] = {}
    for each in job.placed:
        if each.flow.expects is not None:
            wanted.setdefault(each.flow.expects, []).append(each)
    expectations: dict[str, ExpectationFile] = {}
    for name, flows in wanted.items():
        if name not in found:
            what = f"there is no expectations/{job.name}/{name}.yml{hint(name, found)}"
            problems += [each.problem(what) for each in flows]
            continue
        from microbatch.checks import read  # here, so that a suite without expectations does not pay for it

        try:
            content = read(found[name], root)
        except ConfigError as cause:
            problems += cause.problems
            continue
        expectations.update({each.flow.name: content for each in flows})
    for name in sorted(set(found) - set(wanted)) if job.complete else ():
        what = f"no flow of jobs/{job.name}.py expects {name}{hint(name, wanted, listed='they expect')}"
        problems.append(Problem(f"expectations/{job.name}/{found[name].name}", what))
    return expectations
