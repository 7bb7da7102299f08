"""Files on an object store: with the store that object_store keeps in memory."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from microbatch.config import load
from microbatch.errors import ConfigError, SourceUnavailable, StateChanged
from microbatch.places import Place, connect, is_seen, place, plain, renamed, storage_options, write
from microbatch.runner.accept import accepted, query_id, start_anew, starting_version
from microbatch.runner.cut import Baseline, cut
from microbatch.sources.listing import File, files_below, logged, look_at, look_at_each, refuse_changed
from microbatch.sources.postgres.copy import Spool as Copy
from microbatch.sources.record import FOLDED, Record
from microbatch.sources.rest.spool import Spool, Writing, digest
from microbatch.stored import Stored


@pytest.fixture
def folder(tmp_path: Path) -> Stored:
    """A folder of a store that nobody else has."""
    found = place(f"memory://{tmp_path.name}/lake")
    assert isinstance(found, Stored)
    return found


def test_a_checkpoint_out_of_reach_is_a_mistake_in_conf():
    with pytest.raises(ConfigError, match="hdfs://name/checkpoints is out of reach without Spark"):
        place("hdfs://name/checkpoints")
    assert is_seen("s3a://lake/x")
    assert not is_seen("hdfs://name/x")


def test_what_reaches_the_store_is_what_spark_is_told(tmp_path: Path):
    connect({})
    assert storage_options("/a/path") is None
    assert storage_options("s3a://lake/x") == {}
    connect(
        {
            "spark.hadoop.fs.s3a.endpoint": "127.0.0.1:9000",
            "spark.hadoop.fs.s3a.connection.ssl.enabled": "false",
            "spark.hadoop.fs.s3a.access.key": "all",
            "spark.hadoop.fs.s3a.secret.key": "hidden",
            "spark.hadoop.fs.s3a.bucket.lake.access.key": "of the lake",
            "spark.hadoop.fs.s3a.bucket.lake.endpoint.region": "eu-west-1",
            "spark.sql.shuffle.partitions": "1",
        }
    )
    assert storage_options("s3a://lake/x") == {
        "aws_access_key_id": "of the lake",
        "aws_secret_access_key": "hidden",
        "aws_region": "eu-west-1",
        "aws_endpoint_url": "http://127.0.0.1:9000",
        "allow_http": "true",
    }
    assert storage_options("s3a://sea/x") | {"aws_access_key_id": "all"} == storage_options("s3a://sea/x")
    assert "hidden" not in repr(place("s3a://lake/x"))
    connect({})


def test_a_suite_that_is_loaded_brings_its_settings(tmp_path: Path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "conf" / "local").mkdir(parents=True)
    (tmp_path / "conf" / "local" / "spark.conf").write_text("spark.hadoop.fs.s3a.endpoint https://store.example\n")
    load(tmp_path)
    assert storage_options("s3a://lake") == {"aws_endpoint_url": "https://store.example"}
    connect({})


def test_a_folder_is_written_listed_moved_and_removed_as_on_a_disk(folder: Stored, tmp_path: Path):
    for root in (folder, tmp_path):
        write(root / "offsets" / "10", "v1")
        write(root / "offsets" / "9", "v1\n{}")
        assert sorted(each.name for each in (root / "offsets").iterdir()) == ["10", "9"]
        assert [each.name for each in (root / "offsets").glob("1*")] == ["10"]
        assert (root / "offsets" / "9").read_text() == "v1\n{}"
        assert (root / "offsets").is_dir() and (root / "offsets").exists() and not (root / "offset").exists()
        renamed(root / "offsets", "offsets.old")
        assert not (root / "offsets").exists()
        assert (root / "offsets.old" / "10").exists()
        (root / "offsets.old" / "10").unlink()
        (root / "offsets.old" / "10").unlink(missing_ok=True)
        for missing in (root / "offsets.old" / "10").unlink, (root / "nothing").read_text:
            with pytest.raises(FileNotFoundError):
                missing()


def test_the_files_of_a_source_are_those_spark_reads(folder: Stored):
    names = ("a b.json", "ü%20.json", "x=1/y.json", "_day=1/z.json", "sub/c.json")
    unseen = ("_half.json", ".hidden.json", "d.json._COPYING_", "_sub/e.json")
    for name in (*names, *unseen):
        (folder / "in" / name).write_text("{}")
    (folder / "in2" / "other.json").write_text("{}")
    assert set(files_below("s", f"{folder}/in")) == {f"{folder}/in/{name}" for name in names}
    assert set(files_below("s", f"{folder}/in*/[ao]*")) == {f"{folder}/in/a b.json", f"{folder}/in2/other.json"}
    assert set(files_below("s", f"{folder}/*/sub")) == {f"{folder}/in/sub/c.json"}
    assert set(files_below("s", f"{folder}/in", "c*")) == {f"{folder}/in/sub/c.json"}
    assert set(files_below("s", f"{folder}/in/a b.json")) == {f"{folder}/in/a b.json"}
    assert plain(f"{folder}/in/%C3%BC%2520.json") == f"{folder}/in/ü%20.json"


def test_a_folder_with_nothing_in_it_is_not_there_and_one_with_a_mark_is(folder: Stored):
    with pytest.raises(SourceUnavailable, match="nothing lies at"):
        files_below("s", f"{folder}/in")
    (folder / "in" / "_keep").write_text("")
    assert files_below("s", f"{folder}/in") == {}


def test_a_file_that_was_written_again_has_another_mark(folder: Stored):
    """Within one second, and of the same size: on a disk the time tells, here the ETag."""
    file = folder / "in" / "1.json"
    file.write_text("one")
    record = Record(folder / "checkpoint")
    seen = look_at(str(file))
    assert seen is not None and seen.mark
    record.keep(0, [seen])
    record.keep(1, [File("s3a://elsewhere", 1, 2)])
    assert record.all() == {str(file): seen, "s3a://elsewhere": File("s3a://elsewhere", 1, 2)}
    refuse_changed("flow", record.all(), files_below("s", f"{folder}/in"))
    file.write_text("two")
    with pytest.raises(StateChanged, match="changed after it was read: .*1.json 3 bytes, written again"):
        refuse_changed("flow", record.all(), files_below("s", f"{folder}/in"))
    file.unlink()
    assert look_at_each([str(file), f"{folder}/checkpoint"]) == {str(file): None, f"{folder}/checkpoint": None}


def test_the_records_of_a_hundred_batches_become_one_object(folder: Stored):
    record = Record(folder / "checkpoint")
    for batch in range(FOLDED + 2):
        record.keep(batch, [File(f"s3a://lake/{batch}.json", 1, 2)])
    left = {file.name for file in record.folder.glob("*.json")}
    assert left == {f"0-{FOLDED - 1}.json", f"{FOLDED}.json", f"{FOLDED + 1}.json"}
    record.forget_after(7)
    assert sorted(record.all()) == [f"s3a://lake/{batch}.json" for batch in range(8)]


def test_a_fetch_that_was_cut_off_on_its_way_into_the_store_does_not_count(folder: Stored):
    """A folder cannot be renamed at once there: its manifest comes last, and what has none is dropped by the next fetch."""
    spool = Spool(folder)
    writing = Writing(spool, 1)
    writing.add('{"id": 1}')
    writing.complete(Counter([digest('{"id": 1}')]), "cursor")
    (spool.place(2) / "00000.json").write_text('{"id": 2}\n')
    (fetch,) = spool.all()
    assert (fetch.number, fetch.cursor) == (1, "cursor")
    assert list(spool.paths(fetch)) == [f"{folder}/spool/00000001/00000.json"]
    assert spool.answer(1) == Counter([digest('{"id": 1}')])
    spool.prune(set())
    assert not spool.place(2).exists() and spool.place(1).exists()
    assert not writing.folder.parent.exists()  # nothing is left on the disk


def test_the_first_copy_of_a_table_is_read_again_from_the_store(folder: Stored):
    copy = Copy(folder)
    blocks = pa.RecordBatch.from_pydict({"id": [str(number) for number in range(5)]})
    assert list(copy._write(iter([blocks]), 2)) == [2, 2, 1]
    there = pickle.loads(pickle.dumps(copy))  # as an executor gets it
    assert [
        row for number in range(3) for block in there.blocks(number) for row in block.to_pylist()
    ] == blocks.to_pylist()
    copy.forget()
    with pytest.raises(FileNotFoundError):
        list(copy.blocks(0))


def test_a_checkpoint_is_set_back_and_put_aside_as_on_a_disk(folder: Stored, tmp_path: Path):
    """Thirteen batches of files, the log compacted at the tenth, set back to the end of batch 4, twice."""
    left = []
    for root in (folder, tmp_path / "disk"):
        checkpoint = root / "flow"
        write(checkpoint / "metadata", '{"id": "old"}')
        for number in range(13):
            write(checkpoint / "offsets" / str(number), f'v1\n{{"conf": {{}}}}\n{{"logOffset": {number}}}')
            write(checkpoint / "commits" / str(number), 'v1\n{"nextBatchWatermarkMs":0}')
            entries = range(number + 1) if number == 9 else (number,)
            lines = [json.dumps({"path": f"s3a://lake/{each}.json", "batchId": each}) for each in entries]
            name = f"{number}.compact" if number == 9 else str(number)
            write(checkpoint / "sources" / "0" / name, "\n".join(["v1", *lines]))
            Record(checkpoint).keep(number, [File(f"s3a://lake/{number}.json", 1, 2)])
        for _ in range(2):
            cut(checkpoint, Baseline("new", 4, ("old",)), {3: '{"logOffset": 3}', 4: '{"logOffset": 4}'})
        assert logged(checkpoint, -1, 4) == [f"s3a://lake/{number}.json" for number in range(5)]
        assert sorted(Record(checkpoint).all()) == [f"s3a://lake/{number}.json" for number in range(5)]
        assert query_id(checkpoint) == "new"
        start_anew(checkpoint, "run", starting_version=7)
        assert (root / "flow.given-up-run" / "metadata").exists()
        assert accepted(checkpoint) and starting_version(checkpoint) == 7 and query_id(checkpoint) is None
        left.append(dict(_below(root, root)))
    assert left[0] == left[1]
    assert len(left[0]) > 20


def _below(root: Place, folder: Place) -> Iterator[tuple[str, str]]:
    for each in folder.iterdir():
        if each.is_dir():
            yield from _below(root, each)
        else:
            yield str(each).removeprefix(str(root)), each.read_text()
