"""`microbatch report`: one self-contained page of what the jobs did, and Great Expectations' Data Docs beside it. No JVM.

The page needs no network and no server: it opens from a file. Everything on it comes from the tables of schema `ops`.
"""

from __future__ import annotations

import os
import webbrowser
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from microbatch.commands.report import datadocs, page
from microbatch.commands.report.gather import gather
from microbatch.config import LoadedJob, Suite
from microbatch.config.values import is_uri
from microbatch.errors import ConfigError, Problem, WarehouseUnavailable


def execute(suite: Suite, jobs: Sequence[LoadedJob], name: str, open_: bool = False) -> int:
    """Write the page and print its path, alone.

    Args:
        name: of the page's file, without its ending.
        open_: show it in the machine's own browser too.

    Raises:
        ConfigError: `storage.reports` is not a folder of this machine.
        WarehouseUnavailable: the page cannot be written there.
    """
    folder = suite.environment.storage["reports"]
    if is_uri(folder):
        raise ConfigError(Problem("conf/base/environment.yml storage.reports", "must be a folder of this machine"))
    now = datetime.now(timezone.utc)
    try:
        warming = datadocs.warm(suite, jobs, Path(folder))
        found = [gather(suite, job, now) for job in jobs]
        docs = datadocs.write(suite, jobs, Path(folder), warming)
        path = write(Path(folder) / f"{name}.html", page.render(suite, found, docs, now))
    except OSError as cause:
        raise WarehouseUnavailable(f"the report cannot be written to {folder}", str(cause.strerror or cause)) from cause
    print(path)
    if open_:
        webbrowser.open(path.as_uri())
    return 0


def write(path: Path, text: str) -> Path:
    """Write a page in one step: whoever has it open sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_text(text, encoding="utf-8")
    half.rename(path)
    return path
