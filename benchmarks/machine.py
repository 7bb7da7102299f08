"""Where the figures are from: machine, versions, settings."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.commands import ROOT

PACKAGES = ("pyspark", "delta-spark", "deltalake", "great-expectations", "duckdb", "pyarrow")


def machine() -> dict[str, str]:
    """The machine, in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cores": str(cores), "processor": _processor(), "memory": f"{memory:.0f} GiB", "system": platform.system()}


def versions() -> dict[str, str]:
    """What ran: the commit, and the versions of what it stands on."""
    found = {"commit": _said("git", "rev-parse", "--short", "HEAD"), "python": platform.python_version()}
    java = re.search(r'version "([^"]+)"', _said("java", "-version"))
    found["java"] = java.group(1) if java else "unknown"
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def settings() -> dict[str, str]:
    """The engine's own settings, which B1 has too."""
    from microbatch import session

    return {**session.CORRECT, **session.LOCAL, "spark.driver.extraJavaOptions": session.JAVA_OPTIONS}


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.machine()


def _said(*words: str) -> str:
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return (done.stdout + done.stderr).strip() or "unknown"
