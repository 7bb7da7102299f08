"""Orders of a shop as files: the same numbers give the same rows, on every machine.

Files are made once, in a pool, and landed for each subject as links with their own time of change: files are taken in by it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Format = Literal["json", "parquet"]
BEGIN_S = 1_704_067_200  # 2024-01-01, UTC
STATUSES = np.array(["open", "paid", "sent", "returned"])
COLUMNS = ("order_id", "customer_id", "product", "quantity", "amount", "status", "updated_at")
BAD_CENTS = 0  # what is paid for an order that has to go to quarantine


def orders(keys: np.ndarray, number: int, bad: int = 0) -> pa.Table:
    """One row for each key.

    Args:
        number: which file this is: later files hold newer versions, and other values.
        bad: so many rows, the first ones, that break a rule.
    """
    chance, count = np.random.default_rng(number), len(keys)
    cents = chance.integers(100, 50_000, count)
    cents[:bad] = BAD_CENTS
    products = pa.array(chance.integers(0, 5_000, count)).cast(pa.string())
    # Each row has a time of its own: which version of a key is the newest must not depend on the order of rows.
    at = (BEGIN_S + number * 600) * 1_000_000 + np.arange(count, dtype=np.int64)
    return pa.table(
        {
            "order_id": pa.array(keys, pa.int64()),
            "customer_id": pa.array(keys % 10_007, pa.int64()),
            "product": pc.binary_join_element_wise("product-", products, ""),
            "quantity": pa.array(chance.integers(1, 20, count), pa.int32()),
            "amount": _text(cents).cast(pa.decimal128(10, 2)),
            "status": pa.array(STATUSES[chance.integers(0, len(STATUSES), count)], pa.string()),
            "updated_at": pa.array(at, pa.timestamp("us", tz="UTC")),
        }
    )


def _text(cents: np.ndarray) -> pa.Array:
    whole, rest = pa.array(cents // 100).cast(pa.string()), pa.array(cents % 100).cast(pa.string())
    return pc.binary_join_element_wise(whole, pc.utf8_lpad(rest, 2, "0"), ".")


class Pool:
    """Files that are made once: `data/bench/pool/<name>/<number>.<format>`."""

    def __init__(self, folder: Path, name: str, format_: Format = "json") -> None:
        self.folder, self.format = folder / "pool" / name, format_
        self.folder.mkdir(parents=True, exist_ok=True)

    def file(self, number: int, keys: np.ndarray, bad: int = 0) -> Path:
        """File number so and so; written where it is missing."""
        file = self.folder / f"{number:06}.{self.format}"
        if not file.exists():
            half = file.with_name(f"_{file.name}")
            rows = orders(keys, number, bad)
            if self.format == "parquet":
                pq.write_table(rows, half)
            else:
                half.write_bytes(_lines(rows))
            os.utime(half, (BEGIN_S + number, BEGIN_S + number))
            half.rename(file)
        return file


def land(files: Iterable[Path], into: Path) -> None:
    """Link files into a folder, so that each subject reads the same bytes with the same times."""
    into.mkdir(parents=True, exist_ok=True)
    for file in files:
        os.link(file, into / file.name)


def _lines(rows: pa.Table) -> bytes:
    """The rows as JSON lines, put together column by column."""
    pieces: list[pa.ChunkedArray | str] = []
    for name in rows.column_names:
        pieces += [f'{"," if pieces else "{"}"{name}":', _json(rows[name])]
    lines = pc.binary_join_element_wise(*pieces, "}\n", "")  # the last argument is the separator
    return b"".join(text.as_buffer().to_pybytes() for text in lines.combine_chunks())


def _json(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(column.type):
        return pc.binary_join_element_wise('"', column, '"', "")
    if pa.types.is_timestamp(column.type):
        text = pc.replace_substring(column.cast(pa.string()), " ", "T")
        return pc.binary_join_element_wise('"', text, '"', "")
    return column.cast(pa.string())


def consecutive(start: int, count: int) -> np.ndarray:
    """So many keys, in their order."""
    return np.arange(start, start + count, dtype=np.int64)


def some_of(keys: int, count: int, number: int) -> np.ndarray:
    """Different keys below `keys`, by chance, the same for the same number."""
    return np.random.default_rng(number).choice(keys, count, replace=False).astype(np.int64)


def recent(newest: int, count: int, number: int) -> np.ndarray:
    """Half of them keys that are new, half of them among the `2 * count` before those."""
    old = newest - 1 - some_of(2 * count, count // 2, number)
    return np.concatenate([old, consecutive(newest, count - len(old))])


def numbers(start: int, count: int) -> Sequence[int]:
    """The numbers of files."""
    return range(start, start + count)
