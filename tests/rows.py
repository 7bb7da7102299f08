"""The rows of a Delta table as a process of its own reads them at its end. No JVM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from microbatch.places import is_local, storage_options


def rows_of(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of the newest version; of a table on a disk through pyarrow's own file system.

    delta-rs's one calls back into Python from pyarrow's threads: a process that ends right after it is now and then
    aborted ("terminate called without an active exception").
    """
    where = str(path)
    own = SubTreeFileSystem(where, LocalFileSystem()) if is_local(where) else None
    opened = DeltaTable(where, storage_options=storage_options(where))
    return opened.to_pyarrow_table(columns=None if columns is None else list(columns), filesystem=own)
