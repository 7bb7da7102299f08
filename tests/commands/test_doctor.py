"""`doctor`: a line a check, each wrong one with what to type; what is wrong outside alone is exit code 5."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from microbatch.commands import doctor
from microbatch.commands.endpoints import Place, places, reached
from microbatch.config import Connection, SourceConf
from tests.commands.conftest import called

HERE = Path(__file__).resolve().parents[2]
JAVA_17 = 'case "$*" in *vector*) exit VECTOR;; esac\necho \'openjdk version "VERSION" 2025-04-15\' >&2\n'


def wrong(text: str) -> dict[str, str]:
    return {line[7:19].strip(): line[21:] for line in text.splitlines() if line.startswith("wrong")}


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a Java of that version at JAVA_HOME."""

    def put(version: str, vector: bool = True) -> str:
        program = tmp_path / "home" / "bin" / "java"
        program.parent.mkdir(parents=True, exist_ok=True)
        script = JAVA_17.replace("VERSION", version).replace("exit VECTOR", "" if vector else "exit 1")
        program.write_text(f"#!/bin/sh\n{script}")
        program.chmod(0o755)
        monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
        return str(program)

    return put


@pytest.fixture
def server() -> Iterator[int]:
    """A port where something listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def test_a_machine_and_a_suite_that_are_well_are_exit_0_and_no_file_is_written(house, all_files):
    before = all_files(house.root)
    done = house.call("doctor")
    assert done.exit_code == 0, done.stdout
    assert wrong(done.stdout) == {}
    assert all_files(house.root) == before
    for check in (
        "Python",
        "packages",
        "Java",
        "Delta's jars",
        "memory",
        "host name",
        "time zone",
        "warehouse",
        "source",
    ):
        assert re.search(rf"^ok +{check} ", done.stdout, flags=re.MULTILINE)


def test_without_a_suite_the_machine_is_looked_at(tmp_path):
    done = called(tmp_path, "doctor")
    assert done.exit_code == 0, done.stdout
    assert "only the machine was looked at" in done.stdout


@pytest.mark.parametrize(("version", "major"), [("17.0.15", 17), ("21", 21), ("25-ea", 25)])
def test_a_java_that_is_new_enough_is_well(java, version, major):
    program = java(version)
    found = doctor.java()
    assert found.wrong is None
    assert found.what == f"{major}, {program} (JAVA_HOME)"


@pytest.mark.parametrize(("version", "major"), [("11.0.2", 11), ("1.8.0_392", 8)])
def test_an_old_java_is_wrong_with_what_to_type(java, version, major):
    java(version)
    found = doctor.java()
    assert f"is Java {major}, 17 or newer is needed; apt-get install openjdk-17-jre-headless" in found.wrong
    assert "unset JAVA_HOME" in found.wrong


def test_a_trimmed_java_is_wrong(java):
    java("17.0.15", vector=False)
    assert "without jdk.incubator.vector" in doctor.java().wrong


def test_a_java_home_that_holds_no_java_is_wrong(monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert f"JAVA_HOME is {tmp_path}, which holds no bin/java" in doctor.java().wrong


def test_a_machine_without_java_is_told_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.java().wrong == "is not found; apt-get install openjdk-17-jre-headless"


def test_jars_that_are_missing_or_not_whole_are_wrong(house, monkeypatch, tmp_path):
    monkeypatch.setenv("MICROBATCH_JARS", str(tmp_path))
    done = house.call("doctor")
    assert done.exit_code == 1
    assert wrong(done.stdout)["Delta's jars"].endswith(f"python -m microbatch.jars {tmp_path}")
    (tmp_path / "delta-spark_4.2_2.13-4.4.0.jar").write_text("")
    assert "lacks delta-storage-4.4.0.jar" in wrong(house.call("doctor").stdout)["Delta's jars"]


def test_a_variable_that_is_not_set_is_wrong_with_its_line_and_said_once(house, monkeypatch):
    monkeypatch.delenv("TEST_ROOT", raising=False)
    (house.root / "conf/base/environment.yml").write_text('storage:\n  warehouse: "${env:TEST_ROOT}/warehouse"\n')
    done = house.call("doctor")
    assert done.exit_code == 1
    assert wrong(done.stdout) == {
        "variables": "TEST_ROOT is not set, conf/base/environment.yml:2 needs it; export TEST_ROOT=…"
    }
    monkeypatch.setenv("TEST_ROOT", str(house.root))
    assert house.call("doctor").exit_code == 0


def test_a_variable_with_a_default_is_not_missed(house):
    (house.root / "conf/base/environment.yml").write_text('channels: {ops: {url: "${env:TEST_WEBHOOK:-}"}}\n')
    done = house.call("doctor")
    assert done.exit_code == 0
    assert "1 are asked for" in done.stdout


def test_the_mistakes_of_a_suite_are_lines_of_their_own(house):
    (house.root / "conf/base/orders.yml").write_text("onwer: me\n")
    done = house.call("doctor")
    assert done.exit_code == 1
    assert "did you mean owner?" in done.stdout


def test_a_storage_root_that_is_a_file_is_wrong(house):
    (house.root / "data/warehouse").write_text("")
    done = house.call("doctor")
    assert done.exit_code == 1
    assert "is a file, not a folder; change storage.warehouse in conf" in wrong(done.stdout)["warehouse"]


def test_a_landing_folder_that_is_not_there_is_exit_5(house):
    (house.root / "data/landing/orders/1.json").unlink()
    (house.root / "data/landing/orders").rmdir()
    done = house.call("doctor")
    assert done.exit_code == 5
    assert "data/landing/orders is not there" in wrong(done.stdout)["source"]


def test_too_few_open_files_are_wrong():
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096));"
        "from microbatch.commands import doctor; print(doctor.files_open().wrong)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=HERE)
    assert done.stdout.strip() == "at most 256 at once, 1024 are needed; ulimit -n 4096"


def test_an_encoding_that_is_not_utf_8_is_wrong():
    env = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    program = "from microbatch.commands import doctor; print(doctor.encoding().wrong)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=HERE, env=env
    )
    assert "export LC_ALL=C.UTF-8" in done.stdout


def test_nothing_heavy_is_loaded_but_what_the_suite_s_own_files_import(house):
    program = (
        "import sys; from pathlib import Path; from microbatch.commands import doctor;"
        "doctor.execute(Path(sys.argv[1]), 'local');"
        "sys.exit(str([name for name in ('delta', 'great_expectations', 'deltalake') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program, house.root], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


class Anything(SourceConf):
    """A source of any kind, which may say itself where it is."""

    servers: str | None = None
    url: str | None = None


def of_kind(kind: str, **keys: str) -> SourceConf:
    return Anything(kind=kind, **keys)


@pytest.mark.parametrize(
    ("kind", "connection", "expected"),
    [
        ("postgres", {"uri": "postgresql://me:s%40crt@db.local:6432/shop"}, ["db.local:6432"]),
        ("postgres", {"uri": "postgresql://db.local/shop"}, ["db.local:5432"]),
        ("postgres", {"uri": "postgresql://me@a:1,b:2/shop"}, ["a:1", "b:2"]),
        ("postgres", {"uri": "postgresql://me@[::1]:6432/shop"}, ["::1:6432"]),
        ("postgres", {"uri": "postgresql:///shop?host=/run/pg"}, ["/run/pg/.s.PGSQL.5432"]),
        ("postgres", {"uri": "postgresql://me:pw@/shop?host=/run/pg&port=7"}, ["/run/pg/.s.PGSQL.7"]),
        ("postgres", {"uri": "postgresql://%2Frun%2Fpg/shop"}, ["/run/pg/.s.PGSQL.5432"]),
        ("kafka", {"servers": "a:9093, b"}, ["a:9093", "b:9092"]),
        ("kafka", {"servers": ("a:9093", "b:9094")}, ["a:9093", "b:9094"]),
        ("rest", {"url": "https://api.local/v1"}, ["api.local:443"]),
        ("rest", {"url": "http://user:pw@api.local:8080/v1"}, ["api.local:8080"]),
        ("unheard_of", {"url": "http://api.local"}, []),
    ],
)
def test_where_a_source_is_follows_from_its_connection_and_shows_no_password(kind, connection, expected):
    assert [str(place) for place in places(of_kind(kind), Connection(**connection))] == expected


def test_what_a_source_says_itself_counts_before_its_connection():
    assert [str(p) for p in places(of_kind("kafka", servers="c:1"), Connection(servers="a:2"))] == ["c:1"]
    assert [str(p) for p in places(of_kind("rest", url="http://c:1"), None)] == ["c:1"]


def test_a_server_that_listens_is_reached_and_one_of_several_is_enough(server):
    assert reached([Place("127.0.0.1", server)]) == (True, f"127.0.0.1:{server}")
    closed = closed_port()
    assert reached([Place("127.0.0.1", closed), Place("127.0.0.1", server)])[0]
    answers, told = reached([Place("127.0.0.1", closed)])
    assert not answers
    assert told.startswith(f"127.0.0.1:{closed} does not answer: ")


def test_a_socket_file_is_reached_where_something_listens(tmp_path):
    path = str(tmp_path / "s")
    place = Place(path, socket=True)
    assert place.trouble() is not None
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        assert place.trouble() is None


def test_a_name_that_stands_for_no_machine_is_one_line():
    trouble = Place("no-such-host.invalid", 80).trouble()
    assert trouble is not None
    assert trouble.startswith("does not answer: ")
    assert "\n" not in trouble
