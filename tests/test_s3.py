"""A suite whose landing, warehouse and checkpoints lie on an S3 server, held against a twin on a disk: `make test-s3`."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pytest

from microbatch.config import load
from microbatch.places import place
from microbatch.runner.lease import LASTS_S
from microbatch.runner.lock import held
from microbatch.stored import Stored
from tests import soak
from tests.landing import Landing
from tests.servers import s3 as servers
from tests.servers.s3 import S3

pytestmark = [pytest.mark.s3, pytest.mark.slow]  # a server, its jars, and a JVM for each run
HERE = Path(__file__).resolve().parent.parent
NO_JAVA = {"PATH": "/nowhere", "JAVA_HOME": "/nowhere"}  # what starts a JVM there fails


@pytest.fixture(scope="module")
def jars() -> Path:
    """The folder of S3A's jars."""
    folder = HERE / ".jars-s3"
    if not (folder / ".fetched").exists() or not servers.PROGRAM.exists():
        pytest.skip("`make test-s3` fetches the jars and the server")
    return folder


@pytest.fixture(scope="module")
def s3(jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    server = S3(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


class StoredShop(soak.Shop):
    """The shop of the soak, on a bucket of its own."""

    def __init__(self, root: Path, s3: S3, jars: Path, bucket: str) -> None:
        super().__init__(root)
        self.base = s3.bucket(bucket)
        self.warehouse, self.checkpoints = f"{self.base}/warehouse", f"{self.base}/checkpoints"
        storage = f"{{landing: {self.base}/landing, warehouse: {self.warehouse}, checkpoints: {self.checkpoints}}}"
        self.write("conf/base/environment.yml", f"storage: {storage}\n")
        self.configure({**s3.settings(), "spark.driver.extraClassPath": f"{jars}/*"})
        load(root)  # from here on this process reaches the bucket too

    def land(self, files: Mapping[str, str]) -> None:
        for path, text in files.items():
            (self.at(f"landing/{path}")).write_text(text)

    def at(self, path: str) -> Stored:
        found = place(f"{self.base}/{path}")
        assert isinstance(found, Stored)
        return found

    def command(self, *words: str, java: bool = False) -> tuple[int, str]:
        """A command to its end; its exit code and what it said."""
        line = [sys.executable, "-m", "microbatch", *words, "--suite", str(self.root)]
        env = {**os.environ, **({} if java else NO_JAVA)}
        done = subprocess.run(line, cwd=HERE, env=env, capture_output=True, text=True, timeout=soak.LONGEST_S)
        return done.returncode, done.stdout + done.stderr


@dataclass(frozen=True)
class Both:
    """A shop on S3 and its twin on a disk, which took in the same files."""

    stored: StoredShop
    twin: soak.Shop


@pytest.fixture(scope="module")
def both(s3: S3, jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """After two runs of each. Tests leave it as it is."""
    folder = tmp_path_factory.mktemp("shops")
    both = Both(StoredShop(folder / "stored", s3, jars, "lake"), soak.Shop(folder / "twin"))
    landing = Landing(random.Random(5))
    files = landing.shops() | landing.round() | landing.round()
    for each in (both.stored, both.twin):
        each.land(files)
        each.run()
    return both


def test_the_tables_are_those_of_a_run_on_a_disk_row_for_row(both: Both):
    assert both.stored.differences(both.twin) == []
    assert both.stored.unlawful() == []
    assert sum(both.stored.rows("bronze.orders").values()) > 10


def test_a_run_that_finds_nothing_starts_no_jvm(both: Both):
    started = time.monotonic()
    code, said = both.stored.command("run", "shop")
    assert code == 0, said
    assert time.monotonic() - started < 10  # 2 s on a quiet machine; what it must not do is to start a JVM


@pytest.mark.parametrize("command", ["audit", "status", "report"])
def test_what_is_told_of_a_job_needs_no_jvm(both: Both, command: str):
    code, said = both.stored.command(command, "shop")
    assert code == 0, said
    assert "FAILED" not in said
    if command == "status":
        assert "take_orders" in said


def test_doctor_asks_the_store(both: Both):
    _, said = both.stored.command("doctor")
    assert f"{both.stored.checkpoints} answers" in said


def test_a_second_runner_is_told_who_holds_the_job(both: Both):
    with held(both.stored.checkpoints, "shop"):
        code, said = both.stored.command("run", "shop")
    assert code == 4
    assert "job shop is held by another run: pid" in said and f"since {datetime.now(timezone.utc):%Y-}" in said


def test_a_lost_checkpoint_is_found_before_a_jvm_starts(both: Both):
    checkpoint = both.stored.at("checkpoints/shop/take_orders")
    checkpoint.rename(checkpoint.with_name("aside"))
    try:
        code, said = both.stored.command("run", "shop")
    finally:
        checkpoint.with_name("aside").rename(checkpoint)
    assert code == 1
    assert "lost checkpoint; table bronze.orders holds batches 0.." in said


def test_a_checkpoint_that_lacks_a_file_is_damaged(both: Both):
    file = both.stored.at("checkpoints/shop/take_orders/offsets/0")
    kept = file.read_bytes()
    file.unlink()
    try:
        code, said = both.stored.command("run", "shop")
    finally:
        file.write_bytes(kept)
    assert code == 1
    assert f"{file} is missing" in said


def test_a_file_that_changed_after_it_was_read_stops_its_flow(both: Both):
    file = next(both.stored.at("landing/orders").iterdir())
    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + b" ")  # of the same size
    try:
        code, said = both.stored.command("run", "shop")
    finally:
        file.write_bytes(kept)
    assert code == 1
    assert f"changed after it was read: {file} {len(kept)} bytes, written again" in said
    assert both.stored.command("run", "shop")[0] == 0  # the same content again is no change: the ETag says so


def test_no_secret_of_the_store_is_written_anywhere(both: Both):
    said = (both.stored.root / "log.txt").read_bytes()
    held_there = [
        each.uri for each in both.stored.at("").walk() if servers.SECRET.encode() in place(each.uri).read_bytes()
    ]
    assert servers.SECRET.encode() not in said
    assert held_there == []


def test_a_store_that_does_not_answer_is_waited_for_by_the_scheduler(both: Both, s3: S3):
    conf = both.stored.root / "conf/local/spark.conf"
    kept = conf.read_text()
    conf.write_text(kept.replace(s3.endpoint, f"http://127.0.0.1:{servers.free_port()}"))
    try:
        code, said = both.stored.command("run", "shop")
    finally:
        conf.write_text(kept)
    assert code == 5, said
    assert "cannot be reached" in said


def test_runs_killed_between_the_steps_of_a_batch_end_as_the_twin_and_leave_a_lease_that_runs_out(
    s3: S3, jars: Path, tmp_path: Path
):
    stored, twin = StoredShop(tmp_path / "stored", s3, jars, "killed"), soak.Shop(tmp_path / "twin")
    landing = Landing(random.Random(6))
    files = landing.shops()
    for step, count in (("target", 2), ("letters", 3)):  # between target and ledger; between letters and target
        files |= landing.round()
        stored.land(files)
        twin.land(files)
        files = {}
        assert stored.killed_at(step, count), f"{step} was not reached {count} times"
        code, said = stored.command("run", "shop")
        assert code == 4 and "is held by another run: pid" in said  # nobody knows yet that its holder is dead
        time.sleep(LASTS_S + 3)
    stored.run()
    stored.audit()
    twin.run()
    assert stored.differences(twin) == []
    assert stored.unlawful() == []


def test_a_rewind_sets_tables_and_checkpoints_back(s3: S3, jars: Path, tmp_path: Path):
    stored, twin = StoredShop(tmp_path / "stored", s3, jars, "rewound"), soak.Shop(tmp_path / "twin")
    landing = Landing(random.Random(7))
    for each, files in ((stored, first := landing.shops() | landing.round()), (twin, first)):
        each.land(files)
    stored.run()
    before = datetime.now(timezone.utc).isoformat(timespec="seconds")
    time.sleep(1)
    later = landing.round()
    stored.land(later)
    twin.land(later)
    stored.run()
    code, said = stored.command("rewind", "shop", "--to", before, java=True)
    assert code == 0, said
    stored.audit()
    stored.run()
    stored.audit()
    twin.run()
    assert stored.differences(twin) == []
