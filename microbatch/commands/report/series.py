"""What batches did over time, in at most so many steps that a chart of a thousand batches stays readable and small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from microbatch.runner.figures import sums

MOST_STEPS = 120  # bars of a chart
MOST_POINTS = 60  # of a small trend beside a rule


def steps(batches: Sequence[Mapping[str, Any]], most: int = MOST_STEPS) -> list[dict[str, Any]]:
    """The batches in their order, neighbours added up where there are more than `most`.

    Returns:
        Of each step: `label`, `at` (ISO 8601), counts of rows, `seconds` (the mean of its batches), `age_h` (hours from the
        newest input to the end of the last batch that knows it; None where none does), `batches`.
    """
    return [_step(group) for group in groups(batches, most)]


def groups(items: Sequence[Any], most: int) -> list[Sequence[Any]]:
    """The items in at most so many runs of neighbours."""
    size = max(1, -(-len(items) // most))
    return [items[at : at + size] for at in range(0, len(items), size)]


def _step(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, last = group[0], group[-1]
    kind = first["query_id"].partition(":")[0] if ":" in first["query_id"] else "batch"
    label = (
        f"{kind} {first['batch_id']}"
        if len(group) == 1
        else f"{len(group)} batches, {first['batch_id']} to {last['batch_id']}"
    )
    ages = [
        (batch["started_at"] - batch["newest_at"]).total_seconds() / 3600 + batch["duration_ms"] / 3_600_000
        for batch in group
        if batch["newest_at"]
    ]
    counts = {name.removeprefix("rows_"): count for name, count in sums(group).items()}
    return {
        "label": label,
        "at": first["started_at"].isoformat(timespec="seconds"),
        **counts,
        "seconds": round(sum(batch["duration_ms"] for batch in group) / len(group) / 1000, 3),
        "age_h": round(ages[-1], 3) if ages else None,
        "batches": len(group),
    }
