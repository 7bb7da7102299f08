"""What the JVM writes while it starts and runs: kept quiet, or handed on where somebody asked for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pyspark
import pytest

from microbatch import session


@pytest.fixture
def heard(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(session, "_LOUD", None)
    session.loud(lines.append)
    return lines


def test_what_is_written_is_quiet_by_default_and_both_outputs_are_as_before(capfd, monkeypatch):
    monkeypatch.setattr(session, "_LOUD", None)
    with session._quiet_start():
        os.write(1, b"what Java prints\n")
        os.write(2, b"WARN Using incubator modules\n")
    os.write(1, b"result\n")
    os.write(2, b"after\n")
    assert capfd.readouterr() == ("result\n", "after\n")


def test_java_holds_no_output_of_the_command_whose_reader_would_wait_for_java_s_end(monkeypatch):
    monkeypatch.setattr(session, "_LOUD", None)
    with session._quiet_start(), subprocess.Popen(["sleep", "60"]) as started:
        held = [os.readlink(f"/proc/{started.pid}/fd/{number}") for number in (1, 2)]
        started.kill()
    assert held == [os.devnull, os.devnull]


def test_a_python_process_of_spark_s_leaves_out_the_archive_of_pyspark_and_keeps_all_else():
    session.worker_python()
    lib = "/spark home/python/lib"
    archives = [f"{lib}/pyspark.zip", f"{lib}/py4j-0.10.9.9-src.zip"]
    shown = [session.worker_python(), "-c", "import os; print(os.environ.get('PYTHONPATH'))"]

    def path(*entries: str) -> str:
        env = {**os.environ, "PYTHONPATH": ":".join(entries)}
        return subprocess.run(shown, env=env, capture_output=True, text=True, check=True).stdout.strip()

    assert path(*archives, "/my *own", "/spark-core.jar", "/pyspark.zip") == "/my *own:/spark-core.jar:/pyspark.zip"
    assert path(*archives) == "None"


def test_spark_s_python_processes_take_pyspark_from_where_it_is_installed(spark):
    def where(blocks):
        import pyarrow
        import pyspark

        for _ in blocks:
            yield pyarrow.RecordBatch.from_pydict({"at": [pyspark.__file__]})

    [found] = spark.range(1).mapInArrow(where, "at STRING").collect()
    assert found["at"] == pyspark.__file__


def test_a_pyspark_that_is_not_installed_here_stays_what_spark_makes_of_it(monkeypatch):
    monkeypatch.setattr(pyspark, "__file__", "/opt/spark/python/pyspark/__init__.py")
    assert session.worker_python() == sys.executable


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
