"""Maintain: fewer files and a shorter ledger, the same rows, and nothing that a reader still needs is gone."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from deltalake import DeltaTable

from microbatch.commands import audit, maintain, replay
from microbatch.commands.quarantine import Letters
from microbatch.errors import ConfigError, StateChanged
from microbatch.runner.lock import REWIND
from microbatch.sink import ops, retention
from microbatch.sink.tables import Table
from microbatch.testing import Bench
from tests.orders import ORDERS_CONF, order

pytestmark = pytest.mark.slow


@pytest.fixture
def busy(orders: Bench) -> Bench:
    """Nine batches of the first flow, a line of each broken; one of the second."""
    orders.write("conf/base/orders.yml", ORDERS_CONF.replace('/orders"', '/orders", max_files_per_batch: 1'))
    for number in range(9):
        orders.land("orders", order(number), "{broken")
    orders.run("orders")
    return orders


def rows(bench: Bench) -> dict[str, list[str]]:
    return {table: sorted(map(str, bench.read(table).collect())) for table in ("bronze.orders", "silver.orders")}


def tended(bench: Bench, keep_days: int = 30) -> int:
    suite = bench.suite()
    return maintain.execute(suite, suite.job("orders"), keep_days, 400)


def audited(bench: Bench) -> int:
    suite = bench.suite()
    return audit.execute(suite, suite.job("orders"))


def test_small_files_become_one_and_the_job_goes_on_as_if_nothing_had_happened(busy: Bench):
    before, bronze = rows(busy), Table(busy.storage["warehouse"], "bronze.orders")
    assert maintain.files_of(bronze).count == 9
    tended(busy)
    assert maintain.files_of(bronze).count == 1
    assert rows(busy) == before
    versions = {name: version for name, version in busy.versions().items() if not name.startswith("ops.")}
    tended(busy)
    assert {name: version for name, version in busy.versions().items() if not name.startswith("ops.")} == versions
    assert not busy.run("orders", flows=["ingest"])
    busy.land("orders", order(50))
    assert [(o.flow, o.rows_read) for o in busy.run("orders") if o.rows_read] == [("ingest", 1), ("refine", 1)]
    assert audited(busy) == 0
    assert busy.run("orders") == []


def test_the_ledger_of_a_run_that_goes_on_stays_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its files are put together as it grows; beside somebody who changes it, the next time."""
    monkeypatch.setattr(ops, "TOGETHER", 10)
    warehouse = str(tmp_path)

    def run(number: int) -> None:
        ops.append(warehouse, "runs", [{"job": "j", "run_id": str(number), "exit_code": number}], (f"q{number}", 0))

    for number in range(25):
        run(number)
    stored = Table(warehouse, "ops.runs")
    assert len(stored.open().file_uris()) < 10
    others = iter(range(25, 45))

    def slow(opened: DeltaTable) -> None:
        for number in others:
            run(number)
        opened.delete("exit_code < 40")

    ops.change(stored, slow)
    assert sorted(each["exit_code"] for each in ops.rows(warehouse, "runs")) == list(range(40, 45))


def test_what_is_written_beside_somebody_who_changes_the_table_is_written_on_what_that_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """To delta-rs not even an append stands beside a delete; and two make the table at once."""
    stored, there, opened = Table(str(tmp_path), "ops.runs"), Table.exists, Table.open
    for key in ("a", "b", "a"):
        seen = iter([False])
        monkeypatch.setattr(Table, "exists", lambda self, seen=seen: next(seen, True) and there(self))
        ops.append(str(tmp_path), "runs", [{"job": "j", "run_id": key}], (key, 0))
    states = iter([stored.open()])
    stored.open().delete("run_id = 'a'")
    monkeypatch.setattr(Table, "open", lambda self, version=None: next(states, None) or opened(self, version))
    ops.append(str(tmp_path), "runs", [{"job": "j", "run_id": "c"}], ("c", 0))
    monkeypatch.undo()
    assert sorted(each["run_id"] for each in ops.rows(str(tmp_path), "runs")) == ["b", "c"]


def test_old_batches_are_folded_into_one_row_and_what_the_ledger_proves_still_adds_up(busy: Bench):
    warehouse, now = busy.storage["warehouse"], datetime.now(timezone.utc)
    suite = busy.suite()
    replay.discard(Letters(suite, suite.job("orders"), None, 0, None))
    for newest in (4, 2, 2):
        gone = retention.forget(warehouse, "orders", now, now, newest=newest)
        assert [batch["flow"] for batch in busy.ledger("orders")].count("ingest") == newest + 1
        assert sum(batch["rows_read"] for batch in busy.ledger("orders")) == 18 + 9
        assert audited(busy) == 0
    assert gone == dict.fromkeys(gone, 0)
    letters = ops.rows(warehouse, "quarantine", [("job", "=", "orders")])
    assert sorted({letter["status"] for letter in letters}) == ["open"]
    assert len(letters) == 8
    kept = {(b["query_id"], b["batch_id"]) for b in busy.ledger("orders")}
    results = ops.rows(warehouse, "expectations", [("job", "=", "orders")])
    assert results and all((each["query_id"], each["batch_id"]) in kept for each in results)
    retention.tidy(warehouse, timedelta(days=30))
    busy.land("orders", order(50))
    assert [(o.flow, o.batch_id, o.rows_written) for o in busy.run("orders")] == [("ingest", 9, 1), ("refine", 1, 1)]
    assert audited(busy) == 0


def test_a_file_that_a_reader_has_still_to_read_is_kept_however_old_it_is(busy: Bench):
    bronze, now = Table(busy.storage["warehouse"], "bronze.orders"), datetime.now(timezone.utc)
    week, later = timedelta(days=7), now + timedelta(days=90)
    assert maintain.keep_hours(busy.suite(), bronze, week, later) == 7 * 24
    busy.land("orders", order(50))
    busy.run("orders", flows=["ingest"])
    assert maintain.keep_hours(busy.suite(), bronze, week, later) >= 90 * 24
    busy.crash("orders", before="letters", flows=["refine"])  # it is planned, and may be stuck for long
    assert maintain.keep_hours(busy.suite(), bronze, week, later) >= 90 * 24


def test_what_is_not_safe_is_refused(busy: Bench):
    with pytest.raises(ConfigError, match="--keep-days: 1 is not safe"):
        tended(busy, keep_days=1)
    mark = busy.checkpoint("orders", REWIND)
    mark.write_text(
        '{"rewind": "r", "point": "2024-01-01T00:00:00+00:00", "jobs": [], "tables": [], "flows": [], "reopened": []}'
    )
    with pytest.raises(StateChanged, match="microbatch rewind orders"):
        tended(busy)
