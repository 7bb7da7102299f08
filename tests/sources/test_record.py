"""What each batch read of files is known for as long as it may be asked for, and does not become a file for each batch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from microbatch.sources.listing import File
from microbatch.sources.record import FOLDED, Record


def file_of(batch: int) -> File:
    return File(f"/landing/{batch}.json", batch, 1000 + batch)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path)


def kept(record: Record, batches: range) -> Record:
    for batch in batches:
        record.keep(batch, [file_of(batch)])
    return record


def names(record: Record) -> list[str]:
    return sorted(os.listdir(record.folder))


def test_older_batches_share_a_file_and_each_is_found_as_it_was(record: Record):
    kept(record, range(2 * FOLDED + 3))
    first, last = f"0-{FOLDED - 1}.json", f"{FOLDED}-{2 * FOLDED - 1}.json"
    assert names(record) == sorted([first, last, *[f"{2 * FOLDED + more}.json" for more in range(3)]])
    assert record.by_batch() == {batch: {file_of(batch).path: file_of(batch)} for batch in range(2 * FOLDED + 3)}
    assert [record.of(batch) for batch in (0, FOLDED, 2 * FOLDED + 2)] == [
        {file_of(batch).path: file_of(batch)} for batch in (0, FOLDED, 2 * FOLDED + 2)
    ]
    assert record.of(2 * FOLDED + 3) == {}
    assert record.batches(FOLDED) == FOLDED + 1
    assert len(record.all()) == 2 * FOLDED + 3


def test_the_first_record_of_a_batch_stands(record: Record):
    record.keep(FOLDED, [file_of(1)])
    record.keep(FOLDED, [file_of(2)])
    assert record.of(FOLDED) == {file_of(1).path: file_of(1)}


def test_a_fold_that_was_killed_before_it_removed_what_it_had_read_loses_and_doubles_nothing(
    record: Record, monkeypatch: pytest.MonkeyPatch
):
    def killed(self: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            kept(record, range(FOLDED + 1))
    assert len(names(record)) == FOLDED + 2
    assert record.batches(FOLDED) == len(record.all()) == FOLDED + 1
    kept(record, range(FOLDED, 2 * FOLDED + 1))
    assert len(names(record)) == 3
    assert record.by_batch() == {batch: {file_of(batch).path: file_of(batch)} for batch in range(2 * FOLDED + 1)}


@pytest.mark.parametrize("back_to", [FOLDED // 2, FOLDED - 1, FOLDED, FOLDED + 5, -1])
def test_what_later_batches_read_is_forgotten_wherever_it_is(record: Record, back_to: int):
    kept(record, range(2 * FOLDED + 3))
    assert len(record.after(back_to)) == 2 * FOLDED + 2 - back_to
    record.forget_after(back_to)
    assert list(record.by_batch()) == list(range(back_to + 1))
    assert record.after(back_to) == []
    kept(record, range(back_to + 1, 2 * FOLDED + 3))
    assert record.batches(2 * FOLDED + 3) == 2 * FOLDED + 3


def test_a_file_that_could_not_be_read_is_forgiven_in_its_batch(record: Record):
    record.keep(7, [file_of(1), file_of(2)])
    record.forgive(7, [file_of(1).path])
    assert record.of(7) == {file_of(1).path: File(file_of(1).path, -1, 0), file_of(2).path: file_of(2)}


def test_every_recorded_file_is_taken_as_it_is_now_and_one_that_vanished_is_forgotten(record: Record, tmp_path: Path):
    there, gone = tmp_path / "there.json", tmp_path / "gone.json"
    there.write_text("longer than it was")
    record.keep(0, [File(str(there), 1, 1), File(str(gone), 1, 1)])
    record.keep(1, [File(str(gone), 1, 1)])
    kept(record, range(2, FOLDED + 1))
    record.refresh()
    assert {path: file.size for path, file in record.all().items()} == {str(there): 18}
    assert record.batches(FOLDED) == FOLDED + 1


def test_one_who_reads_while_another_process_folds_sees_all(record: Record, monkeypatch: pytest.MonkeyPatch):
    kept(record, range(FOLDED))
    before = record._names()
    kept(record, range(FOLDED, FOLDED + 1))
    answers = [before, record._names()]
    monkeypatch.setattr(record, "_names", lambda: answers.pop(0))
    assert len(record.by_batch()) == FOLDED + 1
    assert answers == []
