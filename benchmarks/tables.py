"""What a subject left behind: its rows as one hash, its files, versions and bytes. No JVM."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable

from tests.rows import rows_of


def content(table: Path, keys: Sequence[str], columns: Sequence[str]) -> tuple[int, str]:
    """The number of rows, and a hash of them in the order of their keys."""
    rows = rows_of(table, columns).replace_schema_metadata()
    rows = rows.sort_by([(key, "ascending") for key in keys]).combine_chunks()
    found = hashlib.sha256(str([(field.name, str(field.type)) for field in rows.schema]).encode())
    for column in rows.columns:
        for piece in column.chunks:
            found.update(_plain(piece))
    return rows.num_rows, found.hexdigest()[:16]


def _plain(values: pa.Array) -> bytes:
    """The values as bytes that do not depend on how a writer laid them out."""
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        text = values.cast(pa.large_string()).fill_null("\x00")
        return b"\x1f".join(each.encode() for each in text.to_pylist()) if len(text) < 200_000 else _joined(text)
    kept = pa.concat_arrays([values])  # a slice has an offset, a copy has none
    nulls = kept.is_null().cast(pa.int8())
    return b"".join(bytes(buffer) for each in (nulls, kept.fill_null(0)) for buffer in each.buffers()[1:] if buffer)


def _joined(text: pa.Array) -> bytes:
    import pyarrow.compute as pc

    pieces = [text.slice(start, 200_000) for start in range(0, len(text), 200_000)]
    return b"".join(
        pc.binary_join(pa.ListArray.from_arrays([0, len(piece)], piece.cast(pa.string())), "\x1f")[0]
        .as_buffer()
        .to_pybytes()
        for piece in pieces
    )


def letters(warehouse: Path) -> int:
    """How many rows are in quarantine."""
    table = warehouse / "ops" / "quarantine"
    if not (table / "_delta_log").is_dir():
        return 0
    return rows_of(table, []).num_rows


def version(table: Path) -> int:
    """The newest version; -1 where there is no table."""
    return DeltaTable(str(table)).version() if (table / "_delta_log").is_dir() else -1


def live_files(table: Path) -> int:
    """The files that the newest version is made of."""
    return len(DeltaTable(str(table)).file_uris())


def size(folder: Path) -> tuple[int, int]:
    """How many files lie below a folder, and how many bytes they hold."""
    sizes = [os.lstat(os.path.join(at, name)).st_size for at, _, names in os.walk(folder) for name in names]
    return len(sizes), sum(sizes)
