"""Files that carry their own types, and plain text: as stored, or not at all."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet
import pytest

from microbatch.config.kinds import FilesConf
from microbatch.sources.files import Files, unreadable
from microbatch.sources.listing import File

SCHEMA = "id BIGINT, amount DECIMAL(6,2), name STRING"
WRITE = {"parquet": pa.parquet.write_table, "orc": pa.orc.write_table}
GOOD = pa.table({"id": [1, 2], "amount": pa.array([Decimal("1.10"), None], pa.decimal128(6, 2)), "name": ["x", "y"]})
OTHER_TYPES = {
    "text for a number": GOOD.set_column(0, "id", pa.array(["1", "abc"])),
    "a fraction for a whole number": GOOD.set_column(0, "id", pa.array([1.5, 2.0])),
    "a decimal of more digits behind": GOOD.set_column(
        1, "amount", pa.array([Decimal("1.005")] * 2, pa.decimal128(10, 4))
    ),
    "a decimal of more digits before": GOOD.set_column(
        1, "amount", pa.array([Decimal("12345.10")] * 2, pa.decimal128(9, 2))
    ),
    "a double for a decimal": GOOD.set_column(1, "amount", pa.array([1.1, 2.2])),
    "a number for text": GOOD.set_column(2, "name", pa.array([1, 2])),
}
formats = pytest.mark.parametrize("kind", WRITE)


def land(folder: Path, kind: str, name: str, table: pa.Table) -> Path:
    file = folder / f"{name}.{kind}"
    WRITE[kind](table, file)
    return file


@formats
def test_a_column_that_the_file_lacks_is_null_and_a_narrower_type_fits(reading, tmp_path, kind):
    narrow = GOOD.drop_columns(["name"]).set_column(0, "id", pa.array([1, 2], pa.int32()))
    narrow = narrow.set_column(1, "amount", pa.array([Decimal("1.1"), None], pa.decimal128(4, 1)))
    rows = reading(kind, SCHEMA, land(tmp_path, kind, "a", narrow))
    assert [(row["id"], row["amount"], row["name"]) for row in rows] == [(1, Decimal("1.10"), None), (2, None, None)]
    assert all(row["_problem"] is None for row in rows)


@formats
@pytest.mark.parametrize("what", OTHER_TYPES)
def test_a_file_of_another_type_is_refused_whole_and_never_converted(spark, reading, tmp_path, kind, what):
    good, bad = land(tmp_path, kind, "good", GOOD), land(tmp_path, kind, "bad", OTHER_TYPES[what])
    source = files(tmp_path, kind)
    landed = [File(str(file), file.stat().st_size, 0) for file in (good, bad)]
    refused = {**source.suspicious(spark, landed)}
    refused |= source.broken(spark, [file for file in landed if file.path not in refused])
    assert list(refused) == [str(bad)]


@formats
def test_a_garbled_or_cut_file_is_found_and_named_and_an_empty_one_has_no_rows(spark, tmp_path, kind):
    good = land(tmp_path, kind, "good", GOOD)
    whole = good.read_bytes()
    contents = {"empty": b"", "garbage": b"garbage" * 50, "cut": whole[:-40], "stub": whole[:60]}
    for name, content in contents.items():
        (tmp_path / f"{name}.{kind}").write_bytes(content)
    landed = [File(str(file), file.stat().st_size, 0) for file in sorted(tmp_path.iterdir())]
    for unknown_fields in ("ignore", "rescue"):
        source = files(tmp_path, kind, unknown_fields=unknown_fields)
        broken = source.broken(spark, landed)
        assert sorted(Path(path).stem for path in broken) == ["cut", "garbage", "stub"]
        assert all(0 < len(reason) <= 300 for reason in broken.values())
        kept = [file for file in landed if file.path not in broken]
        assert source.rows(spark, kept).count() == 2


@formats
def test_a_column_the_schema_does_not_name_is_ignored_rescued_or_refused_by_row(reading, tmp_path, kind):
    extra = GOOD.append_column("zz", pa.array([7, None], pa.int64()))
    paths = [land(tmp_path, kind, "a", GOOD), land(tmp_path, kind, "b", extra)]
    assert all(row["_problem"] is None for row in reading(kind, SCHEMA, paths))
    rescued = reading(kind, SCHEMA, paths, unknown_fields="rescue")
    assert sorted(str(row["_rescued"]) for row in rescued) == ["None", "None", "None", '{"zz":7}']
    assert all(row["_problem"] is None and "zz" not in row for row in rescued)
    refused = [row for row in reading(kind, SCHEMA, paths, unknown_fields="fail") if row["_problem"]]
    assert [row["_problem"] for row in refused] == ["unknown field: zz"]
    assert json.loads(refused[0]["_unparsed"])["zz"] == 7


@formats
def test_upper_and_lower_case_are_the_same_column(reading, tmp_path, kind):
    file = land(tmp_path, kind, "a", GOOD.rename_columns(["ID", "Amount", "name"]))
    for unknown_fields in ("ignore", "rescue", "fail"):
        rows = reading(kind, SCHEMA, file, unknown_fields=unknown_fields)
        assert [(row["id"], row["_problem"]) for row in rows] == [(1, None), (2, None)]


def test_avro_is_read_as_stored_and_what_it_cannot_hold_is_named(spark, reading, tmp_path):
    stored = {
        "good": "1L id, 1.10BD amount, 'x' name",
        "extra": "2L id, 1.10BD amount, 'x' name, 7 zz",
        "text": "'abc' id, 1.10BD amount, 'x' name",
        "wide": "1L id, CAST(1.005 AS DECIMAL(10,4)) amount, 'x' name",
    }
    landed = {}
    for name, row in stored.items():
        spark.sql(f"SELECT {row}").coalesce(1).write.format("avro").save(str(tmp_path / name))
        landed[name] = next((tmp_path / name).glob("*.avro"))
    (tmp_path / "cut.avro").write_bytes(landed["good"].read_bytes()[:-5])
    (tmp_path / "empty.avro").write_bytes(b"")
    paths = [*landed.values(), tmp_path / "cut.avro", tmp_path / "empty.avro"]
    broken = files(tmp_path, "avro").broken(spark, [File(str(path), path.stat().st_size, 0) for path in paths])
    assert sorted(broken) == sorted(map(str, (landed["text"], landed["wide"], tmp_path / "cut.avro")))
    good = [path for path in paths if str(path) not in broken]
    rows = reading("avro", SCHEMA, good, unknown_fields="rescue")
    assert sorted((row["id"], row["amount"], row["_rescued"]) for row in rows) == [
        (1, Decimal("1.10"), None),
        (2, Decimal("1.10"), '{"zz":7}'),
    ]


def test_text_is_a_row_a_line_with_its_place_and_bytes_that_are_no_text_are_unparsed(reading, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\r\n\n\xff\n")
    one, blank, bad = reading("text", "line STRING", tmp_path / "a.txt", metadata=True)
    assert [row["_problem"] is None for row in (one, blank, bad)] == [True, True, False]
    assert (one["line"], blank["line"], bad["_unparsed"]) == ("one", "", "\ufffd")
    assert one["_file"].endswith("a.txt")
    assert isinstance(one["_file_modified"], datetime)


def test_an_error_that_is_not_of_a_file_is_no_reason_to_put_one_aside():
    assert unreadable(ValueError("DIVIDE_BY_ZERO")) is None


def files(folder: Path, kind: str, **conf: str) -> Files:
    made = FilesConf(kind="files", format=kind, path=str(folder), **conf)
    return Files("things", "ingest", SCHEMA, made, folder / "checkpoint")
