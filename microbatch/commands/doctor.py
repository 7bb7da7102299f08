"""`microbatch doctor`: what is wrong with this machine or environment, and what to type. Writes nothing, starts no Spark.

A line a check. Exit code 0: all is well; 1: something here has to be changed; 5: all that is wrong is a source which does not
answer now.
"""

from __future__ import annotations

import locale
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from microbatch import jars, session
from microbatch.commands.endpoints import places, reached
from microbatch.config import Suite, load
from microbatch.config.files import job_files
from microbatch.config.values import is_uri
from microbatch.config.variables import variables
from microbatch.errors import ConfigError, MicrobatchError, Problem, TransientError, redacted
from microbatch.places import is_seen
from microbatch.places import place as at

OLDEST_JAVA = 17
GET_JAVA = "apt-get install openjdk-17-jre-headless"
LEAST_MEMORY_GIB = 2.0  # a driver of 1 GiB, Python with Arrow, and the rest of the machine
LEAST_DISK_GIB = 1.0
LEAST_FILES = 1024
JAVA_TIMEOUT_S = 30


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        wrong: None where it is well; otherwise what is wrong and what to type.
        outside: what is wrong is not here: it may be well again by itself.
    """

    check: str
    what: str
    wrong: str | None = None
    outside: bool = False


def execute(root: Path, env: str) -> int:
    """Look at everything and print a line a check."""
    findings: list[Finding] = []
    for finding in _all(root.resolve(), env):
        findings.append(finding)
        print(
            f"{'wrong' if finding.wrong else 'ok   '}  {finding.check:<12}  {finding.wrong or finding.what}", flush=True
        )
    wrong = [finding for finding in findings if finding.wrong]
    if not wrong:
        return 0
    return 5 if all(finding.outside for finding in wrong) else 1


def _all(root: Path, env: str) -> Iterator[Finding]:
    yield python()
    yield from packages()
    yield java()
    yield from delta_jars()
    yield memory()
    yield temporary()
    yield files_open()
    yield encoding()
    yield host_name()
    yield time_zone()
    if not (root / "jobs").is_dir():
        yield Finding("suite", f"there is none in {root}: only the machine was looked at")
        return
    yield from of_suite(root, env)


def python() -> Finding:
    """This Python, and whether it is 64 bits wide: Arrow and Delta are not made for less."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.maxsize < 2**32:
        return Finding("Python", "", f"{sys.executable} is {version} of 32 bits; install one of 64 bits")
    return Finding("Python", f"{version}, {sys.executable}")


def packages() -> Iterator[Finding]:
    """What this version of microbatch asks for, against what is installed."""
    try:
        wanted = [Requirement(text) for text in metadata.requires("microbatch") or ()]
    except metadata.PackageNotFoundError:
        yield Finding("packages", "microbatch is not installed as a package here: versions were not looked at")
        return
    count = 0
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        count += 1
        install = f"pip install '{requirement}'"
        try:
            there = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Finding("packages", "", f"{requirement.name} is not installed; {install}")
            continue
        if not requirement.specifier.contains(there, prereleases=True):
            yield Finding(
                "packages", "", f"{requirement.name} is {there}, {requirement.specifier} is needed; {install}"
            )
    spark = ", ".join(f"{name} {metadata.version(name)}" for name in ("pyspark", "delta-spark") if _installed(name))
    yield Finding("packages", f"{count} are wanted; {spark}")


def _installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def java() -> Finding:
    """The Java that Spark would start: that of JAVA_HOME, else the first on the path."""
    home = os.environ.get("JAVA_HOME")
    program = os.path.join(home, "bin", "java") if home else shutil.which("java")
    if program is None:
        return Finding("Java", "", f"is not found; {GET_JAVA}")
    if not os.access(program, os.X_OK):
        return Finding("Java", "", f"JAVA_HOME is {home}, which holds no bin/java; unset JAVA_HOME, or {GET_JAVA}")
    said = _java(program)
    found = re.search(r'version "(\d+)(?:\.(\d+))?', said or "")
    if said is None or found is None:
        return Finding("Java", "", f"{program} -version does not answer; {GET_JAVA}")
    major = int(found[2]) if found[1] == "1" and found[2] else int(found[1])
    if major < OLDEST_JAVA:
        old = f"{program} is Java {major}, {OLDEST_JAVA} or newer is needed; {GET_JAVA}"
        return Finding("Java", "", f"{old}{', and unset JAVA_HOME' if home else ''}")
    if _java(program, "--add-modules=jdk.incubator.vector") is None:
        trimmed = (
            f"{program} is a trimmed runtime without jdk.incubator.vector, with which Spark does not start; {GET_JAVA}"
        )
        return Finding("Java", "", trimmed)
    return Finding("Java", f"{major}, {program}{' (JAVA_HOME)' if home else ''}")


def _java(program: str, *options: str) -> str | None:
    """What it says of itself; None where it does not start."""
    try:
        done = subprocess.run(
            [program, *options, "-version"], capture_output=True, text=True, timeout=JAVA_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stderr + done.stdout


def delta_jars() -> Iterator[Finding]:
    """Delta's jars, without which no job runs, and Avro's, which only sources of that format need."""
    folder = session.jars_folder()
    named = os.environ.get("MICROBATCH_JARS")
    get = f"python -m microbatch.jars {named or '.jars'}"
    if folder is None:
        where = f"MICROBATCH_JARS is {named}, which has none" if named else "are not found"
        yield Finding("Delta's jars", "", f"{where}; {get}")
        return
    missing = [name for name in jars.KEPT[jars.DELTA] if not (folder / name).exists()]
    if missing:
        yield Finding("Delta's jars", "", f"{folder} lacks {', '.join(missing)}; python -m microbatch.jars {folder}")
        return
    avro = (
        "" if all((folder / name).exists() for name in jars.KEPT[jars.AVRO]) else " (no Avro: that format is not read)"
    )
    yield Finding("Delta's jars", f"{folder}{avro}")


def memory() -> Finding:
    page = os.sysconf("SC_PAGE_SIZE") / 2**30
    total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    if total < LEAST_MEMORY_GIB:
        small = f"{total:.1f} GiB, of which Spark cannot live; use a machine with {LEAST_MEMORY_GIB:g} GiB or more"
        return Finding("memory", "", small)
    return Finding("memory", f"{total:.1f} GiB, {free:.1f} unused; {session.cores()} cores")


def temporary() -> Finding:
    """Where Spark spills what does not fit into memory."""
    folder = os.environ.get("SPARK_LOCAL_DIRS", tempfile.gettempdir()).split(",")[0]
    return _folder("spill", folder, "set SPARK_LOCAL_DIRS to another folder", writes=True)


def files_open() -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < LEAST_FILES:
        more = LEAST_FILES * 4 if hard == resource.RLIM_INFINITY else min(hard, LEAST_FILES * 4)
        return Finding("open files", "", f"at most {soft} at once, {LEAST_FILES} are needed; ulimit -n {more}")
    return Finding("open files", "any number" if soft == resource.RLIM_INFINITY else f"at most {soft:,} at once")


def encoding() -> Finding:
    name, names = locale.getpreferredencoding(False), sys.getfilesystemencoding()
    if {name.lower().replace("-", ""), names.lower().replace("-", "")} != {"utf8"}:
        return Finding("encoding", "", f"is {name}, names of files are {names}; export LC_ALL=C.UTF-8")
    return Finding("encoding", "UTF-8")


def host_name() -> Finding:
    """Spark asks for the address of its own machine at the start, and does not come up without an answer."""
    name = socket.gethostname()
    if own := os.environ.get("SPARK_LOCAL_IP") or os.environ.get("SPARK_LOCAL_HOSTNAME"):
        name = own
    for host in dict.fromkeys((name, "localhost")):
        try:
            address = socket.gethostbyname(host)
        except OSError:
            add = f"echo '127.0.0.1 {host}' | sudo tee -a /etc/hosts, or export SPARK_LOCAL_IP=127.0.0.1"
            return Finding("host name", "", f"{host} has no address; {add}")
    if not address.startswith("127."):
        return Finding("host name", "", f"localhost is {address}; make it 127.0.0.1 in /etc/hosts")
    return Finding("host name", name)


def time_zone() -> Finding:
    """Never wrong: a run is UTC inside whatever the machine's zone is."""
    name, offset_h = time.tzname[0], -time.timezone / 3600
    return Finding("time zone", "UTC" if offset_h == 0 else f"{name} ({offset_h:+g} h); runs and their tables are UTC")


def of_suite(root: Path, env: str) -> Iterator[Finding]:
    """The environment of a suite: its variables, its files, its storage, its sources."""
    ignored: list[Problem] = []
    asked = variables(root, env, [file.stem for file in job_files(root, ignored)])
    unset = [each for each in asked if each.needed and each.unset]
    for each in unset:
        yield Finding("variables", "", f"{each.name} is not set, {each.where} needs it; export {each.name}=…")
    if not unset:
        yield Finding("variables", f"{len(asked)} are asked for, none that is needed is missing")
    try:
        suite = load(root, env)
    except ConfigError as cause:
        mistakes = [problem for problem in cause.problems if not any(each.name in problem.what for each in unset)]
        yield from (Finding("suite", "", str(problem)) for problem in mistakes)
        return
    yield Finding("suite", f"{root}, environment {env}; jobs: {', '.join(suite.jobs) or 'none'}")
    for name, place in suite.environment.storage.items():
        yield _storage(name, place)
    yield from _sources(suite)


def _storage(name: str, place: str) -> Finding:
    if is_uri(place):
        return _store(name, place)
    return _folder(name, place, f"change storage.{name} in conf", writes=name != "landing")


def _store(name: str, place: str) -> Finding:
    """An object store that answers; of other file systems plain Python can say nothing."""
    if name != "checkpoints" and not is_seen(place):
        return Finding(name, f"{place}: looked at by a run only")
    try:
        held = at(place).is_dir()
    except MicrobatchError as cause:
        return Finding(name, "", str(cause), outside=isinstance(cause, TransientError))
    return Finding(name, f"{place} answers{'' if held else ', nothing lies there yet'}")


def _folder(check: str, place: str, otherwise: str, writes: bool) -> Finding:
    """A local folder that is there or can be made, may be written to, and has space."""
    there = Path(place)
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return Finding(check, "", f"{there} is a file, not a folder; {otherwise}")
    if not os.access(there, os.R_OK | os.X_OK):
        return Finding(check, "", f"{there} may not be read; chmod u+rx {there}, or {otherwise}")
    if writes and not os.access(there, os.W_OK):
        return Finding(check, "", f"{there} may not be written to; chmod u+w {there}, or {otherwise}")
    free_gib = shutil.disk_usage(there).free / 2**30
    if writes and free_gib < LEAST_DISK_GIB:
        return Finding(check, "", f"{place}: {free_gib:.1f} GiB are free, {LEAST_DISK_GIB:g} are needed; {otherwise}")
    return Finding(check, f"{place}{'' if there == Path(place) else ' (will be made)'}, {free_gib:,.1f} GiB free")


def _sources(suite: Suite) -> Iterator[Finding]:
    for job in suite.jobs.values():
        for name, conf in job.conf.sources.items():
            connection = suite.environment.connections.get(getattr(conf, "connection", None) or "")
            where = places(conf, connection)
            if not where:
                yield Finding("source", f"{job.name}.{name}: of kind {conf.kind}, which is looked at by a run only")
                continue
            answers, text = reached(where)
            told = redacted(f"{job.name}.{name}: {text}", suite.secrets)
            again = "; land files there, start the server, or change the conf of the source"
            yield Finding("source", told, None if answers else told + again, outside=True)
