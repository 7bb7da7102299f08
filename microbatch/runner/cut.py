"""A checkpoint set back to an earlier batch, so that Spark goes on behind that one.

Spark keeps the last hundred batches of a checkpoint; what is older is written again from the ledger. The query gets a new id:
the table's log still holds the old one with the batches that are undone, and would skip those that take their place.

Source:
    Spark 4.2, `OffsetSeqLog`, `CommitLog`, `CompactibleFileStreamLog` (every tenth file of the source's log holds all before
    it), `MicroBatchExecution.populateStartOffsets` (the last two offsets and the last commit are read at the start).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from microbatch.places import Place, lines_of, renamed, write
from microbatch.sources.record import Record
from microbatch.sources.tables import numbered

MARK = "microbatch/rewound.json"
COMPACT_EVERY = 10  # spark.sql.streaming.fileSource.log.compactInterval


@dataclass(frozen=True)
class Baseline:
    """Where a checkpoint was set back to: the batch, and the ids its query had before, the newest last."""

    query_id: str
    batch_id: int
    before: tuple[str, ...]


def baseline(checkpoint: Place) -> Baseline | None:
    """What the last rewind of a checkpoint left, or None."""
    mark = checkpoint / MARK
    if not mark.exists():
        return None
    found = json.loads(mark.read_text())
    return Baseline(found["query_id"], found["batch_id"], tuple(found["before"]))


def known_ids(checkpoint: Place, query_id: str | None) -> tuple[str, ...]:
    """The ids under which the ledger knows a checkpoint's batches: its own, and those it had before it was set back."""
    found = baseline(checkpoint)
    return (*(found.before if found else ()), *((query_id,) if query_id else ()))


def cut(checkpoint: Place, to: Baseline, ends: Mapping[int, str]) -> None:
    """Set a checkpoint back to the end of batch `to.batch_id`. Doing it again, after a kill too, changes nothing.

    Args:
        ends: the end offset of that batch and of the one before it, as one line of JSON each.
    """
    _write(checkpoint / MARK, json.dumps({"query_id": to.query_id, "batch_id": to.batch_id, "before": to.before}))
    planned = numbered(checkpoint / "offsets")
    settings = lines_of((checkpoint / "offsets" / str(planned[-1])).read_text("utf-8"))[1]
    for batch_id, end in ends.items():
        _write(checkpoint / "offsets" / str(batch_id), f"v1\n{settings}\n{end}")
    _write(checkpoint / "commits" / str(to.batch_id), 'v1\n{"nextBatchWatermarkMs":0}')
    for folder in ("commits", "offsets"):  # the commits first: an offset without its commit is a batch to be run again
        for number in reversed(numbered(checkpoint / folder)):
            if number > to.batch_id:
                _remove(checkpoint / folder / str(number))
    upto = json.loads(ends[to.batch_id]).get("logOffset")
    if upto is not None:
        _cut_log(checkpoint / "sources" / "0", int(upto))
        Record(checkpoint).forget_after(to.batch_id)
    _write(checkpoint / "metadata", json.dumps({"id": to.query_id}))


def put_aside(checkpoint: Place, rewind: str) -> None:
    """A checkpoint that had not begun yet: as `<flow>.rewound-<rewind>` beside it."""
    if checkpoint.exists():
        renamed(checkpoint, f"{checkpoint.name}.rewound-{rewind}")


def _cut_log(log: Place, upto: int) -> None:
    """The log of Spark's file source, entries up to `upto` only: the last compaction at or before it, and singles behind."""
    if not log.is_dir():
        return
    entries: dict[str, dict[str, Any]] = {}
    for file in _log_files(log):
        for line in lines_of(file.read_text("utf-8"))[1:]:
            entry = json.loads(line)
            if entry["batchId"] <= upto:
                entries[json.dumps(entry, sort_keys=True)] = entry
    kept = sorted(entries.values(), key=lambda entry: entry["batchId"])
    compact = upto - (upto + 1) % COMPACT_EVERY
    wanted = {f"{compact}.compact": [e for e in kept if e["batchId"] <= compact]} if compact >= 0 else {}
    for number in range(max(compact, -1) + 1, upto + 1):
        wanted[str(number)] = [e for e in kept if e["batchId"] == number]
    for name, found in wanted.items():
        lines = [json.dumps(entry, separators=(",", ":")) for entry in found]
        _write(log / name, "\n".join(["v1", *lines]))
    for file in reversed(_log_files(log)):
        if file.name not in wanted:
            _remove(file)


def _log_files(log: Place) -> list[Place]:
    found = [file for file in log.iterdir() if file.name.removesuffix(".compact").isdigit()]
    return sorted(found, key=lambda file: int(file.name.removesuffix(".compact")))


def _write(file: Place, text: str) -> None:
    """Replace a file whole; Hadoop's checksum of what it held is no longer true."""
    write(file, text)
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)


def _remove(file: Place) -> None:
    file.unlink()
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)


__all__ = ["Baseline", "baseline", "cut", "put_aside"]
