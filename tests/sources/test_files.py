"""Files that come, change, vanish or cannot be read: whole runs, every row accounted for."""

from __future__ import annotations

import gzip
import json
import os
import time

import pytest

from microbatch.errors import SourceUnavailable, StateChanged
from tests.sources.conftest import lines

DAY_S = 86_400
NAMES = ["a b.json", "50%25.json", "\u00e9t\u00e9.json", "[x].json", "*.json", "c#d?.json", "half.tmp", "no_ending"]
NESTED = ["2024/01/a.json", "day=1/a.json", "_day=2/a.json"]
UNSEEN = ["_a.json", ".a.json", "a.json._COPYING_", "_half/a.json", ".git/a.json"]


def test_every_name_is_read_but_those_that_begin_with_a_dot_or_an_underscore(things):
    job = things()
    for number, name in enumerate([*NAMES, *NESTED, *UNSEEN]):
        job.land(name, lines(number))
    assert job.bench.report("things").exit_code == 0
    assert job.ids() == list(range(len(NAMES) + len(NESTED)))
    assert job.audit() == 0
    assert [flow.state for flow in job.bench.report("things").flows] == ["idle"]


def test_a_name_that_looks_like_a_pattern_is_read_once_beside_the_names_it_would_match(reading, tmp_path):
    for number, name in enumerate(["*.json", "a.json", "[b].json", "b.json", "{c,d}.json", "c.json", "d\\.json"]):
        (tmp_path / name).write_text(lines(number))
    assert sorted(row["id"] for row in reading("json", "id BIGINT", tmp_path.iterdir())) == list(range(7))


def test_a_name_with_a_colon_is_read_like_any_other(things):
    job = things()
    job.land("2024-01-01T00:00:00.json", lines(1))
    job.land("b.json", lines(2))
    assert job.bench.report("things").exit_code == 0
    assert job.ids() == [1, 2]
    assert job.audit() == 0


def test_a_file_is_read_however_old_or_young_it_says_it_is(things):
    job, now = things(), time.time()
    for number, age_d in enumerate((-30, 0)):
        os.utime(job.land(f"{number}.json", lines(number)), (now - age_d * DAY_S,) * 2)
    job.bench.run("things")
    for number, age_d in ((2, 8), (3, 400)):
        os.utime(job.land(f"{number}.json", lines(number)), (now - age_d * DAY_S,) * 2)
    job.bench.run("things")
    assert job.ids() == [0, 1, 2, 3]


def test_conf_says_how_much_a_batch_takes_in_at_most(things):
    job = things("format: json, max_bytes_per_batch: 20")
    for number in range(3):
        job.land(f"{number}.json", lines(number, number + 10))
    assert [outcome.rows_read for outcome in job.bench.run("things")] == [2, 2, 2]
    assert len(job.ids()) == 6


def test_a_folder_that_is_not_there_is_an_unavailable_source_and_an_empty_one_is_nothing_to_do(things):
    job = things()
    report = job.bench.report("things")
    assert report.exit_code == 5
    assert isinstance(report.errors[0], SourceUnavailable) and "is not there" in str(report.errors[0])
    job.folder.mkdir(parents=True)
    report = job.bench.report("things")
    assert (report.exit_code, [flow.state for flow in report.flows]) == (0, ["idle"])
    assert not job.bench.checkpoint("things", "ingest").exists()


def test_a_file_finished_or_overwritten_after_it_was_read_stops_the_flow_with_its_sizes(things):
    job = things()
    whole = '{"id": 1, "amount": 1.00}\n{"id": 2, "amount": 2.00}\n'
    half = job.land("a.json", whole[:38])
    job.bench.run("things")
    before = job.bench.versions()
    half.write_text(whole)
    with pytest.raises(StateChanged, match=r"a\.json 38 -> 52 bytes") as stopped:
        job.bench.run("things")
    assert stopped.value.exit_code == 1
    half.write_text(whole[:38].replace("1.00", "9.00"))
    with pytest.raises(StateChanged, match=r"a\.json 38 bytes, written again"):
        job.bench.run("things")
    after = job.bench.versions()
    assert (after.pop("ops.runs"), after) == (2, {name: before[name] for name in after})


def test_a_file_that_vanished_between_plan_and_commit_stops_the_flow_until_it_is_back(things):
    job = things()
    job.land("a.json", lines(1))
    gone = job.land("b.json", lines(2) + "{broken\n")
    times = gone.stat()
    job.bench.crash("things", before="target")
    content = gone.read_bytes()
    gone.unlink()
    with pytest.raises(StateChanged, match=r"vanished before it was read: .*/b\.json") as stopped:
        job.bench.run("things")
    assert stopped.value.exit_code == 1
    assert "bronze.things" not in job.bench.versions()
    os.utime(job.land("b.json", content), ns=(times.st_atime_ns, times.st_mtime_ns))
    job.bench.run("things")
    assert job.ids() == [1, 2]
    assert [letter[:2] for letter in job.letters()] == [("parse", "{broken")]
    assert job.audit() == 0


def test_a_file_that_vanished_after_its_batch_is_no_matter_and_the_same_content_again_is_new_input(things):
    job = things()
    job.land("a.json", lines(1)).rename(job.land("b.json", lines(1)))
    job.bench.run("things")
    (job.folder / "b.json").unlink()
    assert [flow.state for flow in job.bench.report("things").flows] == ["idle"]
    job.land("c.json", lines(1))
    job.bench.run("things")
    assert job.ids() == [1, 1]
    assert job.audit() == 0


def test_unreadable_files_go_to_quarantine_and_the_others_to_the_table(things):
    job = things()
    packed = gzip.compress("".join(lines(number) for number in range(20_000)).encode())
    files = {"cut.json.gz": packed[:9_000], "none.json.gz": b"not packed at all", "flip.json.gz": flipped(packed)}
    for name, content in files.items():
        job.land(name, content)
    job.land("empty.json", b"")
    job.land("good.json.gz", gzip.compress(lines(1).encode()))
    job.land("good.json", lines(2) + "{broken\n")
    report = job.bench.report("things")
    assert report.exit_code == 0
    assert job.ids() == [1, 2]
    letters = [letter for letter in job.letters() if letter[0] == "file"]
    found = {json.loads(payload)["path"]: (json.loads(payload)["size"], reason) for _, payload, reason in letters}
    assert {path: size for path, (size, _) in found.items()} == {
        str(job.folder / name): len(content) for name, content in files.items()
    }
    assert all(reason for _, reason in found.values())
    assert job.audit() == 0


def test_a_batch_of_nothing_but_unreadable_files_ends_well_and_the_next_goes_on(things):
    job = things("format: parquet")
    job.land("a.parquet", b"garbage" * 20)
    job.land("b.parquet", b"PAR1" + b"garbage" * 20)
    (outcome,) = job.bench.run("things")
    assert (outcome.rows_read, outcome.rows_written) == (0, 0)
    assert [letter[0] for letter in job.letters()] == ["file", "file"]
    assert [flow.state for flow in job.bench.report("things").flows] == ["idle"]
    job.land("c.parquet", b"")
    job.bench.run("things")
    assert len(job.letters()) == 2
    assert job.audit() == 0


def test_csv_that_would_give_good_looking_wrong_rows_goes_to_quarantine_as_files(things):
    job = things("format: csv")
    job.land("unclosed.csv", 'id,amount\n1,"1.00\n2,2.00\n')
    job.land("swapped.csv", "amount,id\n1,2\n")
    job.land("cut.csv.gz", gzip.compress(b"id,amount\n" + b"7,1.00\n" * 9_000)[:40])
    job.land("good.csv", 'id,amount\n3,"3.00"\n4\n5,1,1\n6,1.005\n')
    assert job.bench.report("things").exit_code == 0
    assert job.ids() == [3]
    letters = job.letters()
    assert [payload for kind, payload, _ in letters if kind == "parse"] == ["4", "5,1,1", "6,1.005"]
    reasons = {os.path.basename(json.loads(text)["path"]): why for kind, text, why in letters if kind == "file"}
    assert sorted(reasons) == ["cut.csv.gz", "swapped.csv", "unclosed.csv"]
    assert "odd number of quotes" in reasons["unclosed.csv"] and "CSV header" in reasons["swapped.csv"]
    assert job.audit() == 0


def test_an_orc_file_of_another_type_goes_to_quarantine_instead_of_becoming_nulls(things, spark):
    job = things("format: orc")
    for name, row in {"good": "1L id, 1.10BD amount", "text": "'abc' id, 1.10BD amount"}.items():
        spark.sql(f"SELECT {row}").coalesce(1).write.orc(str(job.folder / name))
    job.bench.run("things")
    assert job.ids() == [1]
    ((kind, _, reason),) = job.letters()
    assert kind == "file" and "id is string, the schema says bigint" in reason
    assert job.audit() == 0


@pytest.mark.parametrize("inside", [True, False])
def test_a_link_is_read_where_it_stays_inside_the_folder_and_refused_where_it_leads_out(things, tmp_path, inside):
    job = things()
    real = job.land("sub/a.json", lines(1)) if inside else tmp_path / "secret.json"
    real.write_text(lines(1))
    job.land("b.json", lines(2))
    (job.folder / "link.json").symlink_to(real)
    report = job.bench.report("things")
    if inside:
        assert (report.exit_code, job.ids()) == (0, [1, 1, 2])
    else:
        assert report.exit_code != 0
        assert "outside the folder" in str(report.errors[0]) and "link.json" in str(report.errors[0])
        assert job.bench.versions().keys() <= {"ops.runs"}


def test_places_and_rescued_fields_reach_the_table_and_a_refused_field_its_letter(things):
    job = things("format: json, metadata: true, unknown_fields: rescue")
    job.land("a b.json", '{"id": 1, "zz": {"deep": [1.5]}}\n{"id": 2}\n')
    job.bench.run("things")
    rows = sorted(job.bench.read("bronze.things").collect())
    assert [(row.id, row._rescued) for row in rows] == [(1, '{"zz":{"deep":[1.5]}}'), (2, None)]
    assert all(row._file.endswith("/a%20b.json") and row._file_modified for row in rows)


def test_names_of_a_filter_are_read_and_the_others_are_not_waited_for(things):
    job = things('format: json, options: {pathGlobFilter: "*.json"}')
    job.land("a.json", lines(1))
    job.land("a.done", "")
    job.bench.run("things")
    assert job.ids() == [1]
    assert [flow.state for flow in job.bench.report("things").flows] == ["idle"]


@pytest.mark.slow
def test_the_source_log_is_followed_through_its_compaction(things):
    job = things("format: json, max_files_per_batch: 1")
    for number in range(10):
        job.land(f"{number}.json", lines(number))
    assert len(job.bench.run("things")) == 10
    assert (job.bench.checkpoint("things", "ingest") / "sources" / "0" / "9.compact").exists()
    assert [flow.state for flow in job.bench.report("things").flows] == ["idle"]
    job.land("10.json", lines(10))
    (outcome,) = job.bench.run("things")
    assert (outcome.batch_id, outcome.rows_written) == (10, 1)
    assert job.ids() == list(range(11))
    assert job.audit() == 0


def flipped(packed: bytes) -> bytes:
    """The same bytes with some bits in the middle turned round."""
    middle = len(packed) // 2
    return packed[:middle] + bytes(byte ^ 0xFF for byte in packed[middle : middle + 40]) + packed[middle + 40 :]
