"""A small suite with its ledger, letters and runs, written as the engine writes them and without Spark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from microbatch.cli import group
from microbatch.outcome import Outcome
from microbatch.sink import ops
from tests import orders


def ago(hours: float) -> datetime:
    """So many hours before this moment: tests run for many minutes, and what they call reads the clock itself."""
    return datetime.now(timezone.utc) - timedelta(hours=hours)


def called(root: Path, *arguments: str) -> Result:
    """Call a command over a suite; stdout and stderr apart."""
    return CliRunner().invoke(group, [*arguments, "--suite", str(root)])


def outcome(
    flow: str,
    run_id: str = "run-1",
    batch_id: int = 0,
    hours_ago: float = 1,
    in_table: bool = True,
    **counts: int,
) -> Outcome:
    """A batch that began so many hours ago; what `counts` does not say is 0."""
    at = ago(hours_ago).isoformat()
    numbers = dict.fromkeys((name for name in ops.TABLES["batches"] if name.startswith("rows_")), 0) | counts
    return Outcome(
        job="orders",
        flow=flow,
        run_id=run_id,
        query_id=f"query-{flow}",
        batch_id=batch_id,
        started_at=at,
        duration_ms=1500,
        source_start="",
        source_end="",
        target_version=batch_id if in_table else None,
        newest_at=at,
        suite_version="v",
        **numbers,
    )


@dataclass(frozen=True)
class House:
    """A suite on disk and its `ops` tables."""

    root: Path
    warehouse: str

    def call(self, *arguments: str) -> Result:
        return called(self.root, *arguments)

    def batch(
        self,
        flow: str,
        run_id: str = "run-1",
        batch_id: int = 0,
        hours_ago: float = 1,
        in_table: bool = True,
        **counts: int,
    ) -> None:
        """One row of the ledger; not `in_table`: one whose rows all left, so that it has no commit in the target."""
        ops.record(self.warehouse, outcome(flow, run_id, batch_id, hours_ago, in_table, **counts))

    def taken(self, flow: str, run_id: str = "run-1", batch_id: int = 0, hours_ago: float = 1, **counts: int) -> None:
        """A batch in the ledger and in the flow's checkpoint, with no commit in the target: a run finds nothing to do."""
        self.batch(flow, run_id, batch_id, hours_ago, in_table=False, **counts)
        checkpoint = self.root / "data" / "checkpoints" / "orders" / flow
        lines = {"offsets": 'v1\n{}\n{"logOffset":-1}', "commits": "v1\n{}"}
        for folder, text in lines.items():
            (checkpoint / folder).mkdir(parents=True, exist_ok=True)
            (checkpoint / folder / str(batch_id)).write_text(text)
        (checkpoint / "metadata").write_text(f'{{"id": "query-{flow}"}}')

    def ran(
        self, run_id: str = "run-1", hours_ago: float = 1, error: str | None = None, sla_met: bool | None = None
    ) -> None:
        """One row of `ops.runs`."""
        at = ago(hours_ago)
        status, code = ("failed", 1) if error else ("done", 0)
        row = {"job": "orders", "run_id": run_id, "started_at": at, "finished_at": at, "status": status}
        ops.append(
            self.warehouse,
            "runs",
            [{**row, "exit_code": code, "error": error, "sla_met": sla_met, "suite_version": "v"}],
        )

    def letter(self, id_: str, payload: str = '{"order_id":1}', *, hours_ago: float = 1, **other: Any) -> None:
        """One dead letter, for a row whose amount is not positive unless said otherwise."""
        reason = {
            "expectation": "expect_column_values_to_be_between",
            "column": "amount",
            "severity": "critical",
            "message": "amount must be greater than 0, found -1.00",
        }
        letter = {
            "id": id_,
            "job": "orders",
            "flow": "refine",
            "query_id": "query-refine",
            "batch_id": 0,
            "run_id": "run-1",
            "quarantined_at": ago(hours_ago),
            "kind": "row",
            "reasons": [reason],
            "payload": payload,
            "status": "open",
            "attempts": 1,
        }
        ops.append(self.warehouse, "quarantine", [{**letter, **other}])


@pytest.fixture
def house(tmp_path: Path) -> House:
    """The shared suite of orders, with nothing run yet and one file landed."""
    orders.write(tmp_path, '{"order_id": 1}\n')
    return House(tmp_path, str(tmp_path / "data" / "warehouse"))


@pytest.fixture
def all_files() -> Callable[[Path], set[str]]:
    """Every file and folder below a folder, to see that nothing was written; Python's own caches left out."""
    return lambda root: {str(path) for path in root.rglob("*") if "__pycache__" not in path.parts}
