"""`microbatch init DIR` and `microbatch new JOB`: files that run and whose tests pass, to be edited afterwards.

A new suite is what `new orders` makes, in a folder with the few files around it and some rows to take in.
"""

from __future__ import annotations

import json
import keyword
import shlex
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import jinja2

from microbatch.config import Suite, load
from microbatch.config.files import BASE, ENVIRONMENT
from microbatch.config.names import NAME_RULE, is_name
from microbatch.config.schema import CONF_FILES, file_of, schema_of
from microbatch.errors import ConfigError, MicrobatchError, Problem
from microbatch.session import jars_folder

FIRST_JOB = "orders"
SUITE = {
    "README.md": "suite/README.md",
    ".gitignore": "suite/gitignore",
    "setup.cfg": "suite/setup.cfg",
    "run.py": "suite/run.py",
    # packages, not bare folders: a `transforms` that stands anywhere later on the path would win over a bare one
    "jobs/__init__.py": "suite/jobs.py",
    "transforms/__init__.py": "suite/transforms.py",
    f"conf/{BASE}/{ENVIRONMENT}.yml": "suite/environment.yml",
    f"data/landing/{FIRST_JOB}/1.json": "suite/landed.json",
}
JOB = {
    "jobs/{job}.py": "job/job.py",
    "transforms/{job}.py": "job/transform.py",
    f"conf/{BASE}/{{job}}.yml": "job/conf.yml",
    "expectations/{job}/{job}.yml": "job/expectations.yml",
    "tests/jobs/test_{job}.py": "job/test_job.py",
    "tests/transforms/test_{job}.py": "job/test_transform.py",
}
LONGEST_NAME = 63


def init(directory: Path) -> int:
    """Make a suite in a folder that is empty or not there yet, and say what to type next.

    Raises:
        ConfigError: the folder holds something, or is no folder.
    """
    root = directory.resolve()
    if root.exists() and not root.is_dir():
        raise ConfigError(Problem(str(directory), "is a file; name a folder that is empty or not there yet"))
    if root.is_dir() and any(root.iterdir()):
        raise ConfigError(
            Problem(str(directory), "is not empty; name another folder, or make a job in this one with new JOB")
        )
    words = {"name": root.name, **_words(FIRST_JOB)}
    texts = {name: _text(template, words) for name, template in SUITE.items()}
    texts |= {name.format(job=FIRST_JOB): _text(template, words) for name, template in JOB.items()}
    texts |= {f"conf/{file_of(of)}": _json(schema_of(of)) for of in CONF_FILES}
    _write(root, texts)
    shown = shlex.quote(str(directory))
    print(f"a suite in {shown}, with the job {FIRST_JOB}; next:")
    steps = [] if root == Path.cwd() else [f"cd {shown}"]
    if jars_folder() in (None, Path.cwd() / ".jars") and not (root / ".jars").exists():
        steps.append("python -m microbatch.jars .jars   # Delta's jars, once")
    for step in (*steps, f"microbatch run {FIRST_JOB}", "pytest", "microbatch new returns   # a job of your own"):
        print(f"  {step}")
    return 0


def new(root: Path, env: str, job: str) -> int:
    """Make a job in a suite, and say what to edit.

    Raises:
        ConfigError: the name cannot be a job's, there is no suite, or something of that name is there already.
    """
    root = root.resolve()
    if not (root / "jobs").is_dir():
        raise ConfigError(
            Problem("jobs", f"there is no such folder in {root}; make a suite first: microbatch init DIR")
        )
    _refuse_name(job)
    words = _words(job)
    names = {name.format(job=job): template for name, template in JOB.items()}
    there = [name for name in names if (root / name).exists()]
    if there:
        raise ConfigError(*[Problem(name, f"is there already; choose another name than {job}") for name in there])
    suite = _loaded(root, env)
    writers = {flow.writes.table: name for name, each in (suite.jobs if suite else {}).items() for flow in each.flows}
    if words["table"] in writers:
        what = f"writes {words['table']} already, the table of the new job; choose another name than {job}"
        raise ConfigError(Problem(f"jobs/{writers[words['table']]}.py", what))
    _write(root, {name: _text(template, words) for name, template in names.items()})
    print(f"the job {job}, which runs as it is; edit what differs:")
    for name, what in _to_edit(job):
        print(f"  {name:<{max(len(name) for name, _ in _to_edit(job))}}  {what}")
    print(f"its tests: pytest {' '.join(name for name in names if name.startswith('tests/'))}")
    if suite is None:
        print(f"the suite has mistakes elsewhere, which stop every job: microbatch plan {job} lists them")
    return 0


def _refuse_name(job: str) -> None:
    why = None
    if not is_name(job):
        why = f"is not a name: {NAME_RULE}"
    elif keyword.iskeyword(job):
        why = "is a word of Python itself, and the job is a Python file; choose another"
    elif job == ENVIRONMENT:
        why = "is the file of conf for all jobs; choose another"
    if why:
        raise ConfigError(Problem(job or '""', why))


def _words(job: str) -> dict[str, str]:
    title = job.replace("_", " ").strip().capitalize()
    return {"job": job, "title": title, "flow": f"keep_{job}"[:LONGEST_NAME], "table": f"silver.{job}"}


def _to_edit(job: str) -> list[tuple[str, str]]:
    return [
        (f"jobs/{job}.py", "the target: its table, keys, and what makes a version newer"),
        (f"transforms/{job}.py", "LANDED, the columns that come; and what is made of them"),
        (f"conf/{BASE}/{job}.yml", "where the files land, their format, when the job runs, who owns it"),
        (f"expectations/{job}/{job}.yml", "what is good data, and why"),
        (f"tests/jobs/test_{job}.py", "rows as they come, and what must become of them"),
    ]


def _loaded(root: Path, env: str) -> Suite | None:
    """The suite; None where it has mistakes: they are of other files, and no reason not to make these."""
    try:
        return load(root, env)
    except ConfigError:
        return None


def _text(template: str, words: Mapping[str, str]) -> str:
    source = files("microbatch").joinpath("templates", *f"{template}.jinja".split("/")).read_text("utf-8")
    return jinja2.Template(source, undefined=jinja2.StrictUndefined, keep_trailing_newline=True).render(words)


def _json(document: object) -> str:
    return json.dumps(document, indent=2) + "\n"


def _write(root: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        file = root / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        except OSError as cause:
            raise MicrobatchError(f"{file} cannot be written: {cause.strerror or cause}") from cause
