"""`status`: from ledger, letters and checkpoints, without a JVM."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from microbatch.commands.status import KEYS


def flows(house, *arguments: str) -> dict[str, dict]:
    called = house.call("status", "orders", "--json", *arguments)
    assert called.exit_code == 0, called.stderr
    return {each["flow"]: each for each in json.loads(called.stdout)}


def test_before_the_first_run_every_flow_is_there_with_what_is_pending(house, all_files):
    before = all_files(house.root)
    found = flows(house)
    assert [found[name]["last_status"] for name in ("ingest", "refine")] == [None, None]
    assert [found[name]["lag"] for name in ("ingest", "refine")] == [1, 0]
    assert found["ingest"]["freshness_h"] is None
    assert all_files(house.root) == before


def test_the_keys_of_json_are_those_that_programs_rely_on(house):
    house.batch("ingest", rows_read=1, rows_transformed=1, rows_written=1)
    rows = {"rows_read", "rows_written", "rows_quarantined", "rows_superseded"}
    last = {"last_run_id", "last_run_at", "last_status", "last_error", "sla_met"}
    promised = {"job", "flow", "lag", "freshness_h", "open_quarantine", "oldest_letter_h"} | rows | last
    assert promised <= set(KEYS)
    assert tuple(flows(house)["ingest"]) == KEYS


def test_rows_are_those_of_the_last_run_and_beside_them_those_of_all(house):
    house.batch("ingest", "run-1", 0, hours_ago=5, rows_read=10, rows_unparsed=1, rows_transformed=9, rows_written=9)
    house.ran("run-1", hours_ago=5, sla_met=False)
    house.batch("ingest", "run-2", 1, hours_ago=2, rows_read=4, rows_transformed=4, rows_quarantined=1, rows_written=3)
    house.ran("run-2", hours_ago=2, sla_met=True)
    found = flows(house)["ingest"]
    assert (found["last_run_id"], found["last_status"], found["sla_met"]) == ("run-2", "done", True)
    assert (found["rows_read"], found["rows_written"], found["rows_quarantined"]) == (4, 3, 1)
    assert (found["all_rows_read"], found["all_rows_written"], found["all_rows_quarantined"]) == (14, 12, 2)
    assert found["freshness_h"] == pytest.approx(2, abs=0.1)


def test_a_run_that_failed_at_one_flow_leaves_the_one_before_it_done(house):
    house.batch("ingest", rows_read=1, rows_transformed=1, rows_written=1)
    house.ran(error="flow refine stopped at batch 0: it broke")
    found = flows(house)
    assert (found["ingest"]["last_status"], found["ingest"]["last_error"]) == ("done", None)
    assert (found["refine"]["last_status"], found["refine"]["last_error"]) == (
        "failed",
        "flow refine stopped at batch 0: it broke",
    )


def test_a_flow_behind_one_that_failed_waits(house):
    house.ran(error="source orders is not available: it is gone")
    found = flows(house)
    assert [found[name]["last_status"] for name in ("ingest", "refine")] == ["failed", "waiting"]


def test_an_error_that_names_no_flow_is_everyones(house):
    house.ran(error="the warehouse cannot be written: No space left on device")
    assert {each["last_status"] for each in flows(house).values()} == {"failed"}


def test_batches_without_a_finished_run_are_unfinished(house):
    house.batch("ingest", rows_read=1, rows_transformed=1, rows_written=1)
    assert flows(house)["ingest"]["last_status"] == "unfinished"


def test_only_open_letters_count_and_the_oldest_tells_its_age(house):
    house.letter("a1", hours_ago=3)
    house.letter("a2", hours_ago=1)
    house.letter("a3", hours_ago=9, status="discarded")
    found = flows(house)["refine"]
    assert found["open_quarantine"] == 2
    assert found["oldest_letter_h"] == pytest.approx(3, abs=0.1)
    assert flows(house)["ingest"]["open_quarantine"] == 0


def test_a_source_that_is_away_has_no_lag_and_says_why_and_the_exit_code_stays_0(house):
    shutil.rmtree(house.root / "data" / "landing")
    found = flows(house)["ingest"]
    assert found["lag"] is None
    assert "source orders is not available" in found["error"]
    assert "source orders is not available" in house.call("status").stdout


def test_people_get_a_table_with_thousands_separators(house):
    house.batch("ingest", rows_read=12345, rows_transformed=12345, rows_written=12345)
    house.ran()
    out = house.call("status").stdout
    assert "orders.ingest" in out
    assert "12,345" in out
    assert "in all runs" in out


def test_an_unknown_job_is_exit_code_2_with_the_nearest_name(house):
    called = house.call("status", "order")
    assert called.exit_code == 2
    assert "did you mean orders?" in called.stderr


@pytest.mark.parametrize("command", [["status"], ["quarantine", "list", "orders"]])
def test_no_jvm_is_started(house, command):
    """In a process of its own: this one has a JVM."""
    house.letter("a1")
    script = (
        "import sys\n"
        "from microbatch.cli import group\n"
        "try:\n"
        f"    group({[*command, '--suite', str(house.root)]!r}, standalone_mode=False)\n"
        "except SystemExit as ended:\n"
        "    assert not ended.code\n"
        "context = sys.modules.get('pyspark.core.context')\n"
        "assert context is None or context.SparkContext._gateway is None, 'a JVM was started'\n"
        "assert 'great_expectations' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60)
