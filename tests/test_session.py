"""What the JVM writes while it starts and runs: kept quiet, or handed on where somebody asked for it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from microbatch import session


@pytest.fixture
def heard(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(session, "_LOUD", None)
    session.loud(lines.append)
    return lines


def test_what_is_written_is_quiet_by_default_and_stderr_is_as_before(capfd, monkeypatch):
    monkeypatch.setattr(session, "_LOUD", None)
    with session._quiet_start():
        os.write(2, b"WARN Using incubator modules\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_where_it_was_asked_for_each_line_is_handed_on(heard, capfd):
    with session._quiet_start():
        os.write(2, b"WARN first\nWARN second\n")
    until = time.monotonic() + 10
    while len(heard) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert heard == ["WARN first", "WARN second"]
    assert capfd.readouterr().err == ""


def test_an_archive_of_classes_that_does_not_fit_is_passed_over_without_a_word(tmp_path: Path):
    assert session.java_options(tmp_path) == session.JAVA_OPTIONS
    (tmp_path / session.ARCHIVE).write_text("of another Java")
    options = session.java_options(tmp_path).split()
    done = subprocess.run(["java", *options, "-version"], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert not [line for line in done.stderr.lower().splitlines() if "archive" in line or session.ARCHIVE in line]
