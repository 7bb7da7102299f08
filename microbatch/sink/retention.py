"""How long the engine keeps what it knows of its own work: the ledger is folded, closed letters and old results go.

A flow's old batches become one row that holds their sums, so that what the ledger proves of a table still adds up.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from microbatch.sink import ops
from microbatch.sink.ops import BESIDE, FOLDED
from microbatch.sink.tables import Table

KEPT = 100  # the newest batches of a flow stay, however old: what Spark keeps of a checkpoint


def forget(warehouse: str, job: str, before: datetime, now: datetime, newest: int = KEPT) -> dict[str, int]:
    """Fold and drop what is older; by delta-rs, a commit a table, each of which changes nothing when done again.

    Args:
        before: batches, results, runs and closed letters from before then go. Open letters stay, however old.
        newest: so many batches of each flow stay as they are.

    Returns:
        How many rows each table has fewer, by its name.
    """
    flows = {each["flow"] for each in ops.rows(warehouse, "batches", [("job", "=", job)], only=("flow",))}
    folded = {flow: fold(warehouse, job, flow, before, newest) for flow in sorted(flows)}
    gone = {"batches": sum(folded.values())}
    mine = f"job = {ops.literal(job)}"
    kept = {(b["query_id"], b["batch_id"]) for b in ops.rows(warehouse, "batches", [("job", "=", job)])}
    closed = [
        letter["id"]
        for letter in ops.rows(warehouse, "quarantine", [("job", "=", job), ("quarantined_at", "<", before)])
        if letter["status"] != "open" and (letter["query_id"], letter["batch_id"]) not in kept
    ]
    gone["quarantine"] = _delete(warehouse, "quarantine", f"id IN {ops.literal(closed)}") if closed else 0
    old = ops.literal(before)
    gone["runs"] = _delete(warehouse, "runs", f"{mine} AND finished_at < {old}")
    for name, when in ops.MEMORY.items():
        gone[name] = _delete(warehouse, name, f"{mine} AND {when} < {ops.literal(now - ops.REMEMBERED)}")
    results = ops.rows(warehouse, "expectations", [("job", "=", job)], only=("flow", "query_id", "batch_id"))
    old_ones = _older({(r["flow"], r["query_id"], r["batch_id"]) for r in results}, kept)
    gone["expectations"] = sum(
        _delete(
            warehouse,
            "expectations",
            f"{mine} AND flow = {ops.literal(flow)} AND query_id = {ops.literal(query_id)} AND batch_id <= {batch_id}",
        )
        for flow, query_id, batch_id in old_ones
    )
    return gone


def fold(warehouse: str, job: str, flow: str, before: datetime, newest: int = KEPT) -> int:
    """Put one row in the place of a flow's batches from before then, but for the newest; how many rows fewer there are."""
    rows = ops.rows(warehouse, "batches", [("job", "=", job), ("flow", "=", flow)])
    own = sorted((r for r in rows if not r["query_id"].startswith(BESIDE)), key=lambda row: row["started_at"])
    old = [row for row in own[:-newest] if row["started_at"] < before]
    if not old:
        return 0
    earlier = [row for row in rows if row["query_id"] == FOLDED]
    together = [*earlier, *old]
    counts = [name for name in ops.TABLES["batches"] if name.startswith("rows_") or name == "duration_ms"]
    last = old[-1]
    one = {
        **last,
        **{name: sum(row[name] for row in together) for name in counts},
        "query_id": FOLDED,
        "batch_id": len(old) + sum(row["batch_id"] for row in earlier),
        "source_start": together[0]["source_start"],
        "target_version": max((r["target_version"] for r in together if r["target_version"] is not None), default=None),
    }
    import pyarrow as pa

    oldest = ops.literal(last["started_at"])
    gone = [*{row["query_id"] for row in old}, FOLDED]
    these = f"job = {ops.literal(job)} AND flow = {ops.literal(flow)} AND query_id IN {ops.literal(gone)}"
    data = pa.Table.from_pylist([one], schema=ops.schema("batches"))
    ops.write(Table(warehouse, "ops.batches"), data, predicate=f"{these} AND started_at <= {oldest}")
    return len(together) - 1


def tidy(warehouse: str, keep: timedelta) -> None:
    """Few files and a short log for the engine's own tables, a checkpoint of it first; what is read of them is the same."""
    for name in ops.TABLES:
        table = Table(warehouse, f"ops.{name}")
        if not table.exists():
            continue
        ops.change(table, lambda opened: opened.optimize.compact())
        opened = table.open()
        opened.vacuum(int(keep / timedelta(hours=1)), dry_run=False, enforce_retention_duration=False)
        opened.create_checkpoint()


def _older(found: set[tuple[str, str, int]], kept: set[tuple[str, int]]) -> Iterable[tuple[str, str, int]]:
    """Of each flow's query the newest batch whose ledger row is no longer there: up to it the results may go."""
    newest: dict[tuple[str, str], int] = {}
    for flow, query_id, batch_id in found:
        if (query_id, batch_id) not in kept and not query_id.startswith(BESIDE):
            newest[flow, query_id] = max(batch_id, newest.get((flow, query_id), -1))
    return [(flow, query_id, batch_id) for (flow, query_id), batch_id in sorted(newest.items())]


def _delete(warehouse: str, name: str, predicate: str) -> int:
    table = Table(warehouse, f"ops.{name}")
    if not table.exists():
        return 0
    found: dict[str, Any] = ops.change(table, lambda opened: opened.delete(predicate))
    return int(found.get("num_deleted_rows") or 0)
