"""A session for little work is for runs that have little work: few new files, light tables, nothing that a server has."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from microbatch import session
from microbatch.config import Suite, load
from microbatch.runner import little, run
from microbatch.runner.inputs import input_of
from microbatch.runner.little import is_little
from tests import orders


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    """Two flows over a folder with one small file."""
    orders.write(tmp_path, str(orders.order(1)))
    return load(
        tmp_path, storage={name: str(tmp_path / "data" / name) for name in ("landing", "warehouse", "checkpoints")}
    )


def all_of(suite: Suite):
    return suite.ordered(("orders",))


def test_a_small_file_and_no_table_yet_are_little(suite: Suite):
    assert is_little(suite, all_of(suite))


def test_one_file_that_is_not_small_is_not_little(suite: Suite, tmp_path: Path):
    with (tmp_path / "data/landing/orders/2.json").open("wb") as file:
        file.truncate(little.MOST_NEW)
    assert not is_little(suite, all_of(suite))


def test_a_table_that_is_read_or_written_and_is_not_light_is_not_little(suite: Suite, tmp_path: Path, monkeypatch):
    write_deltalake(tmp_path / "data/warehouse/silver/orders", pa.table({"order_id": range(1000)}))
    assert is_little(suite, all_of(suite))
    monkeypatch.setattr(little, "MOST_THERE", 1000)
    assert not is_little(suite, all_of(suite))
    assert is_little(suite, [(job, flow) for job, flow in all_of(suite) if flow.name == "ingest"])


def test_what_a_server_has_is_not_little(suite: Suite, tmp_path: Path):
    (tmp_path / "conf/base/environment.yml").write_text('connections: {bank: {url: "http://127.0.0.1:1"}}\n')
    conf = "owner: tests\nsources: {orders: {kind: rest, connection: bank, path: orders}}\n"
    (tmp_path / "conf/base/orders.yml").write_text(conf)
    again = load(tmp_path, storage=suite.environment.storage)
    ingest = next((job, flow) for job, flow in all_of(again) if flow.name == "ingest")
    spool = input_of(again, *ingest).spool.folder
    spool.mkdir(parents=True)  # what was fetched is a file, and little: what the server has may be much
    (spool / "1.json").write_text("{}")
    assert not is_little(again, all_of(again))


def test_a_folder_that_is_not_there_is_not_little_and_the_flow_says_so(suite: Suite, tmp_path: Path):
    (tmp_path / "data/landing/orders/1.json").unlink()
    (tmp_path / "data/landing/orders").rmdir()
    assert not is_little(suite, all_of(suite))
    report = run(suite, ["orders"], flows=["ingest"])
    assert [type(error).__name__ for error in report.errors] == ["SourceUnavailable"]


@pytest.mark.parametrize("on", [False, True], ids=["ends", "goes on"])
def test_only_a_run_that_ends_is_asked_for_a_session_for_little(suite: Suite, monkeypatch, on: bool):
    asked = []

    def start(name, conf, *, little):
        asked.append(little)
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "start", start)
    run(suite, ["orders"], flows=["ingest"], on=on)
    assert asked[:1] == [not on]


def test_a_session_for_little_generates_no_code_and_compiles_once_and_conf_still_wins():
    jars = session.jars_folder()
    usual, few = session.local_settings(jars, little=False), session.local_settings(jars, little=True)
    assert few.items() - usual.items() == {
        *session.LITTLE.items(),
        ("spark.driver.extraJavaOptions", few["spark.driver.extraJavaOptions"]),
    }
    assert few["spark.driver.extraJavaOptions"] == f"{usual['spark.driver.extraJavaOptions']} {session.FIRST_COMPILER}"
    assert session._with(few, {"spark.sql.codegen.wholeStage": "true"})["spark.sql.codegen.wholeStage"] == "true"
