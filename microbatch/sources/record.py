"""What each batch of a flow read of files, beside Spark's own log of them. Plain Python, on a disk and on an object store.

Spark's log keeps path and time, not the size, and never looks again at a file it has read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from microbatch.places import Place, each_of, write
from microbatch.sources.listing import NOT_TAKEN_IN, File, look_at

# Batches of which one file is made. Every look at what is pending reads all there is: of ten thousand batches a fifth of a
# second on a disk, and as many requests to an object store.
FOLDED = 100
TRIES = 5  # at reading what another process is folding
NAME = re.compile(r"(\d+)(?:-(\d+))?\.json")

Batches = dict[int, dict[str, File]]


class Record:
    """The files each batch of a flow read, as they were then, by path.

    `<checkpoint>/microbatch/files/<batch>.json`, and `<first>-<last>.json` for older batches. Where a batch is in two of them
    the file of its own counts.
    """

    def __init__(self, checkpoint: Place) -> None:
        self.folder = checkpoint / "microbatch" / "files"

    def keep(self, batch_id: int, files: Iterable[File]) -> None:
        """Record a batch's files; the first record of a batch stands, so that a file changed in between is seen."""
        target = self.folder / f"{batch_id}.json"
        if not target.exists():
            write(target, json.dumps([file.as_recorded() for file in files]))
            if batch_id % FOLDED == 0:
                self._fold(batch_id)

    def forgive(self, batch_id: int, paths: Iterable[str]) -> None:
        """Files that could not be read may be mended in place: they were not taken in, so no change of theirs is a loss."""
        broken = set(paths)
        files = [File(f.path, NOT_TAKEN_IN, 0) if f.path in broken else f for f in self.of(batch_id).values()]
        write(self.folder / f"{batch_id}.json", json.dumps([file.as_recorded() for file in files]))

    def refresh(self) -> None:
        """Take every recorded file as it is now: one that changed counts as read, one that vanished is forgotten."""
        for name in self._names():
            read = (self._read(name) or {}).items()
            self._write(name, {batch: {path: now for path in files if (now := look_at(path))} for batch, files in read})

    def after(self, batch_id: int) -> list[str]:
        """The files that later batches read."""
        return [path for batch, files in self.by_batch().items() if batch > batch_id for path in files]

    def forget_after(self, batch_id: int) -> None:
        """Forget what later batches read: it is to be read again."""
        for name in self._names():
            first, last = _range(name)
            if last > batch_id:
                if first <= batch_id:
                    read = (self._read(name) or {}).items()
                    self._write(
                        f"{first}-{batch_id}.json", {batch: files for batch, files in read if batch <= batch_id}
                    )
                (self.folder / name).unlink()

    def of(self, batch_id: int) -> dict[str, File]:
        """The files recorded for a batch; empty where it has no record."""
        own = self._read(f"{batch_id}.json")
        if own is not None:
            return own[batch_id]
        older = (name for name in self._names() if "-" in name and _range(name)[0] <= batch_id <= _range(name)[1])
        return next((found[batch_id] for name in older if (found := self._read(name)) and batch_id in found), {})

    def batches(self, upto: int) -> int:
        """How many batches up to this one have a record."""
        return sum(batch <= upto for batch in self.by_batch())

    def all(self) -> dict[str, File]:
        """Every recorded file, by path."""
        return {path: file for files in self.by_batch().values() for path, file in files.items()}

    def by_batch(self) -> Batches:
        """The recorded files of each batch, in the order of batches."""
        found: list[Batches | None] = []
        for _ in range(TRIES):
            found = each_of(self.folder, self._read, self._names())
            if None not in found:
                break
        return dict(sorted((batch, files) for each in found if each for batch, files in each.items()))

    def _fold(self, before: int) -> None:
        """Make one file of the records of older batches. Killed in between, a batch is in two files, which say the same."""
        names = [name for name in self._names() if "-" not in name and _range(name)[0] < before]
        if len(names) > 1:
            whole = {batch: files for name in names for batch, files in (self._read(name) or {}).items()}
            self._write(f"{_range(names[0])[0]}-{_range(names[-1])[1]}.json", whole)
            for name in names:
                (self.folder / name).unlink(missing_ok=True)

    def _names(self) -> list[str]:
        """The files of the folder, those of several batches first."""
        there = [file.name for file in self.folder.glob("[0-9]*.json")] if self.folder.is_dir() else []
        return sorted(
            (name for name in there if NAME.fullmatch(name)), key=lambda name: ("-" not in name, _range(name))
        )

    def _read(self, name: str) -> Batches | None:
        """The batches of one file; None where it is gone."""
        try:
            found = json.loads((self.folder / name).read_text())
        except FileNotFoundError:
            return None
        by_batch = found if isinstance(found, dict) else {name.removesuffix(".json"): found}
        return {int(batch): {file[0]: File(*file) for file in files} for batch, files in by_batch.items()}

    def _write(self, name: str, batches: Mapping[int, Mapping[str, File]]) -> None:
        recorded = {str(batch): [file.as_recorded() for file in files.values()] for batch, files in batches.items()}
        write(self.folder / name, json.dumps(recorded if "-" in name else next(iter(recorded.values()))))


def _range(name: str) -> tuple[int, int]:
    """The first and the last batch of a file."""
    first, last = name.removesuffix(".json").partition("-")[::2]
    return int(first), int(last or first)
