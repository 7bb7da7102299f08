"""Dead letters: rows that broke a critical expectation or did not parse, files that could not be read.

A letter holds the input as it came and every reason, so that it can be read, mended and replayed. Two equal bad rows are two
letters. Letters are written before the target: a batch whose target commit is missing replaces those of its last attempt.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from microbatch.outcome import HIDDEN
from microbatch.sink import ops
from microbatch.sink.tables import ORDER, Table

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import StructType

# Letters of a batch, and their bytes, above which Spark writes them instead of the driver.
MANY, LARGE = 20_000, 20_000_000
TABLE = "ops.quarantine"
REASON = ("expectation", "column", "severity", "message")


@dataclass(frozen=True)
class Origin:
    """Which batch the letters are from."""

    warehouse: str
    job: str
    flow: str
    query_id: str
    batch_id: int
    run_id: str
    now: str

    def predicate(self) -> str:
        """SQL that is true for the letters an attempt at this batch writes, and for no others."""
        batch = f"query_id = '{self.query_id}' AND batch_id = {self.batch_id}"
        return f"job = '{self.job}' AND flow = '{self.flow}' AND {batch} AND kind <> 'batch'"


def of_rows(judged: DataFrame, leaves: Column, reasons: Column, mask: Sequence[str] = ()) -> DataFrame:
    """The letters of the rows that leave: `kind`, `payload` (JSON of the input row, `mask`ed columns hidden), `reasons`."""
    from pyspark.sql import functions as F

    return judged.where(leaves).select(
        F.lit("row").alias("kind"), payload(judged, mask).alias("payload"), reasons.alias("reasons")
    )


def of_text(raw: DataFrame, mask: Sequence[str] = ()) -> DataFrame:
    """The letters of what did not parse: `kind`, `payload` (the text itself), `reasons`.

    Where a column is masked the text is hidden whole: nobody knows where in it that column's value is.
    """
    from pyspark.sql import functions as F

    text, problem = F.col("_unparsed"), F.col("_problem")
    if mask:
        text = F.concat(F.lit(f"{HIDDEN} ("), F.length("_unparsed"), F.lit(f" characters; masked: {', '.join(mask)})"))
        problem = F.regexp_replace("_problem", "(?s); its bytes.*|: .*", "")
    values = (F.lit("parse"), F.lit(""), F.lit("critical"), problem)
    reason = F.struct(*[value.alias(name) for name, value in zip(REASON, values, strict=True)])
    unparsed = raw.where("_unparsed IS NOT NULL")
    return unparsed.select(F.lit("parse").alias("kind"), text.alias("payload"), F.array(reason).alias("reasons"))


def of_files(broken: Mapping[str, str], sizes: Mapping[str, int]) -> pa.Table:
    """The letters of files that could not be read: path and size as JSON, and why."""
    import pyarrow as pa

    records = [
        {
            "kind": "file",
            "payload": json.dumps({"path": path, "size": sizes.get(path)}),
            "reasons": [{"expectation": "read", "column": "", "severity": "critical", "message": reason}],
        }
        for path, reason in sorted(broken.items())
    ]
    shape = ops.schema("quarantine")
    return pa.Table.from_pylist(
        records, schema=pa.schema([shape.field(name) for name in ("kind", "payload", "reasons")])
    )


def is_ordered(rows: DataFrame) -> bool:
    """Whether they tell which of two changes of a key came later (`ORDER`)."""
    return ORDER in getattr(rows.schema["_row"].dataType, "names", ())


def input_of(rows: DataFrame) -> Column:
    """The input of each row as its letter holds it: `_row` without what is the engine's own."""
    from pyspark.sql import functions as F

    return F.col("_row").dropFields(ORDER) if is_ordered(rows) else F.col("_row")


def size(rows: DataFrame, shape: StructType) -> Column:
    """About the bytes of a row's letter: those of its input as text, or of its columns `shape`."""
    from pyspark.sql import functions as F

    from microbatch.sink import small

    return F.octet_length("_row").cast("long") if _is_text(rows) else small.width(shape) + 8 * len(shape)


def payload(rows: DataFrame, mask: Sequence[str] = ()) -> Column:
    """The input row of `_row` as JSON text (it is that text already, or a struct), the values of `mask` hidden."""
    from pyspark.sql import functions as F

    from microbatch.sink import exact

    text = F.col("_row") if _is_text(rows) else exact.to_json("_row")
    if not mask:
        return text
    hidden = F.parse_json(F.lit(f'"{HIDDEN}"'))
    fields = F.from_json(text, "map<string,variant>")
    names = [name.lower() for name in mask]
    masked = F.transform_values(fields, lambda name, value: F.when(F.lower(name).isin(names), hidden).otherwise(value))
    return F.to_json(masked, {"ignoreNullFields": "false"})


def _is_text(rows: DataFrame) -> bool:
    return rows.schema["_row"].dataType.simpleString() == "string"


def write(
    origin: Origin,
    letters: Sequence[DataFrame],
    count: int,
    size: int,
    files: pa.Table | None = None,
    again: bool = False,
) -> None:
    """Write a batch's letters in one commit; nothing where there are none.

    Args:
        letters: frames as `of_rows` and `of_text` give them, over pinned rows or a repeatable read.
        count, size: how many rows they hold, and about how many bytes (see `size`), as counted in the pass that pinned the batch.
        files: as `of_files` gives it.
        again: whether an earlier attempt at this batch may have left letters, which these replace.

    Raises:
        RuntimeError: the frames hold another number of rows than were counted: the input changed in between.
    """
    if count > MANY or size > LARGE:
        _write_by_spark(origin, letters, files)
        return
    import pyarrow as pa

    rows = [letter for frame in letters for letter in frame.toArrow().to_pylist()]
    if len(rows) != count:
        raise RuntimeError(f"{len(rows)} letters where {count} were counted")
    records = _addressed(origin, [*rows, *(files.to_pylist() if files is not None else [])])
    stored = Table(origin.warehouse, TABLE)
    if records or (again and stored.exists()):
        data = pa.Table.from_pylist(records, schema=ops.schema("quarantine"))
        ops.write(stored, data, predicate=origin.predicate() if again else None)


def of_batch(origin: Origin, payload: Mapping[str, Any], error: str) -> None:
    """One open letter for a batch that failed after its retries: its offsets, files and error. Once more is one attempt more."""
    import pyarrow as pa

    id_ = hashlib.sha256(f"{origin.query_id}|{origin.batch_id}|batch".encode()).hexdigest()[:32]
    before = ops.rows(origin.warehouse, "quarantine", [("id", "=", id_)])
    reason = {"expectation": "batch", "column": "", "severity": "critical", "message": error}
    letter = {
        **_address(origin),
        "id": id_,
        "kind": "batch",
        "reasons": [reason],
        "payload": json.dumps(payload),
        "attempts": max((each["attempts"] for each in before), default=0) + 1,
    }
    data = pa.Table.from_pylist([letter], schema=ops.schema("quarantine"))
    ops.write(Table(origin.warehouse, TABLE), data, predicate=f"id = '{id_}'")


def of_groups(origin: Origin, groups: DataFrame, keys: Sequence[str]) -> tuple[str, ...]:
    """The open letters that hold a row of one of these groups, by id: making the groups anew replaces them.

    Args:
        groups: pinned; one row a group, with `keys`. One Spark job, where the flow has open letters.
    """
    filters = [("job", "=", origin.job), ("flow", "=", origin.flow), ("kind", "=", "row"), ("status", "=", "open")]
    found = ops.rows(origin.warehouse, "quarantine", filters, ("id", "payload", "query_id", "batch_id"))
    own = (origin.query_id, origin.batch_id)  # those of an earlier attempt at this batch, which writes them again
    texts = [(each["id"], each["payload"]) for each in found if (each["query_id"], each["batch_id"]) != own]
    if not texts:
        return ()
    from pyspark.sql import functions as F

    from microbatch.sink import exact

    groups = groups.select(*[f"`{key}`" for key in keys])
    letters = groups.sparkSession.createDataFrame(texts, "id STRING, payload STRING").select(
        "id", F.from_json("payload", groups.schema, exact.OPTIONS).alias("of")
    )
    same = [letters["of"][key].eqNullSafe(groups[f"`{key}`"]) for key in keys]
    return tuple(row.id for row in letters.join(F.broadcast(groups), same, "left_semi").select("id").collect())


def mark(stored: Table, ids: Sequence[str], status: str) -> None:
    """Give letters another status, in one commit."""
    if ids:
        ops.change(stored, lambda opened: opened.update(predicate=these(ids), updates={"status": f"'{status}'"}))


def these(ids: Sequence[str]) -> str:
    """SQL that is true for letters of these ids."""
    return f"id IN {ops.literal(list(ids))}"


def close_batches(warehouse: str, job: str, flow: str, query_id: str, upto: int) -> None:
    """Close the letters of stuck batches that are in their table now."""
    stored = Table(warehouse, TABLE)
    if stored.exists():
        batches = f"job = '{job}' AND flow = '{flow}' AND query_id = '{query_id}' AND batch_id <= {upto}"
        these, closed = f"{batches} AND kind = 'batch' AND status = 'open'", {"status": "'replayed'"}
        ops.change(stored, lambda opened: opened.update(predicate=these, updates=closed))


def _address(origin: Origin) -> dict[str, Any]:
    own = {name: getattr(origin, name) for name in ("job", "flow", "query_id", "batch_id", "run_id")}
    return {**own, "quarantined_at": datetime.fromisoformat(origin.now), "status": "open", "attempts": 1}


def _addressed(origin: Origin, letters: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each letter with its address; the id is the same in every attempt: the batch, the content, and its number among equals."""
    seen, addressed = Counter[str](), []
    for letter in letters:
        content = f"{origin.query_id}|{origin.batch_id}|{letter['kind']}|{letter['payload']}"
        seen[content] += 1
        id_ = hashlib.sha256(f"{content}|{seen[content]}".encode()).hexdigest()[:32]
        addressed.append({**letter, **_address(origin), "id": id_})
    return addressed


def _write_by_spark(origin: Origin, letters: Sequence[DataFrame], files: pa.Table | None) -> None:
    """Very many letters: one Spark commit that replaces those of an earlier attempt."""
    from functools import reduce

    from pyspark.sql import DataFrame, Window
    from pyspark.sql import functions as F

    spark = letters[0].sparkSession
    frames = [*letters, *([spark.createDataFrame(files)] if files is not None and files.num_rows else [])]
    union = reduce(DataFrame.unionByName, frames)
    equal = Window.partitionBy("kind", "payload").orderBy(F.lit(1))
    content = F.concat_ws(
        "|",
        F.lit(origin.query_id),
        F.lit(str(origin.batch_id)),
        "kind",
        "payload",
        F.row_number().over(equal).cast("string"),
    )
    wide = union.withColumns(
        {
            "id": F.substring(F.sha2(content, 256), 1, 32),
            **{name: F.lit(getattr(origin, name)) for name in ("job", "flow", "query_id", "run_id")},
            "batch_id": F.lit(origin.batch_id).cast("long"),
            "quarantined_at": F.lit(origin.now).cast("timestamp"),
            "status": F.lit("open"),
            "attempts": F.lit(1).cast("long"),
        }
    ).select(*ops.schema("quarantine").names)
    writer = wide.write.format("delta")
    stored = Table(origin.warehouse, TABLE)
    if stored.exists():
        writer = writer.option("replaceWhere", origin.predicate()).mode("overwrite")
    writer.save(stored.path)
