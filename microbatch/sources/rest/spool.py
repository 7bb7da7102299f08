"""What was fetched, on the disk as it came: a folder for each fetch below the checkpoint, whole or not there.

    <checkpoint>/spool/00000001/00000.json      one record a line
                                _manifest.json  when, how many, and where the next fetch goes on
                                _answer         which records the answer held, so that none of them is taken in again

A fetch is written under a hidden name and renamed when it is complete: one that was cut off is dropped and made again. An object
store has no such rename: there it is written on the disk first, and its manifest is what is brought to its place last.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from tempfile import mkdtemp
from typing import BinaryIO

from microbatch.places import Place, bring, remove_tree, renamed
from microbatch.stored import Stored

PART_BYTES = 32 << 20  # of one file: what a task parses at once
DIGEST = 16  # bytes that stand for a record
KEPT_DAYS = 30  # a fetch that is in its table stays as long as a deletion is remembered, for who goes back
DAY_S = 86_400


def digest(text: str) -> bytes:
    """What stands for a record."""
    return blake2b(text.encode(errors="surrogateescape"), digest_size=DIGEST).digest()


@dataclass(frozen=True)
class Manifest:
    """What is known of a complete fetch.

    Attributes:
        number: fetches are numbered from 1.
        fetched_at: seconds since 1970.
        cursor: the value to go on from, as it came; None: there is none.
        files: name -> bytes and records of each file.
    """

    number: int
    fetched_at: float
    cursor: str | None
    files: Mapping[str, tuple[int, int]]


class Spool:
    """The fetches of one flow."""

    def __init__(self, checkpoint: Place) -> None:
        self.folder = checkpoint / "spool"

    def all(self) -> list[Manifest]:
        """The complete fetches that are still kept, in their order."""
        if not self.folder.is_dir():
            return []
        numbers = sorted(entry.name for entry in self.folder.iterdir() if entry.name.isdigit())
        manifests = [self.folder / name / "_manifest.json" for name in numbers]
        return [Manifest(**json.loads(each.read_text())) for each in manifests if not self._half(each.parent)]

    def answer(self, number: int) -> Counter[bytes]:
        """Which records the answer of a fetch held, and how often, by digest."""
        held = (self.place(number) / "_answer").read_bytes()
        return Counter(held[at : at + DIGEST] for at in range(0, len(held), DIGEST))

    def place(self, number: int) -> Place:
        """The folder of a fetch."""
        return self.folder / f"{number:08d}"

    def paths(self, manifest: Manifest) -> dict[str, int]:
        """The files of a fetch by their whole path, and the records of each."""
        return {str(self.place(manifest.number) / name): records for name, (_, records) in manifest.files.items()}

    def prune(self, done: set[str]) -> None:
        """Drop what was cut off, and old fetches whose files are `done`; never the last, which knows where to go on."""
        for entry in [*self.folder.glob(".*"), *filter(self._half, self.folder.glob("[0-9]*"))]:
            remove_tree(entry)
        for manifest in self.all()[:-1]:
            old = time.time() - manifest.fetched_at > KEPT_DAYS * DAY_S
            if old and done.issuperset(self.paths(manifest)):
                gone = f".{manifest.number:08d}.gone"  # not half of it is ever seen
                renamed(self.place(manifest.number), gone)
                remove_tree(self.folder / gone)

    def _half(self, fetch: Place) -> bool:
        """Whether it was cut off on its way into an object store."""
        return isinstance(fetch, Stored) and not (fetch / "_manifest.json").exists()


class Writing:
    """A fetch under way."""

    def __init__(self, spool: Spool, number: int) -> None:
        self.spool, self.number = spool, number
        self._beside = Path(mkdtemp(prefix="microbatch-spool-")) if isinstance(spool.folder, Stored) else spool.folder
        self.folder = self._beside / f".{number:08d}.part"
        self.files: dict[str, tuple[int, int]] = {}
        self._part: BinaryIO | None = None
        self._records = 0

    def add(self, text: str) -> None:
        """Keep one record."""
        if self._part is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._part = (self.folder / f"{len(self.files):05d}.json").open("wb")
        self._part.write(text.encode(errors="surrogateescape") + b"\n")
        self._records += 1
        if self._part.tell() >= PART_BYTES:
            self._close()

    def complete(self, answer: Counter[bytes], cursor: str | None) -> None:
        """Make the fetch one that counts, at once and for good; nothing where it brought nothing."""
        self._close()
        if not self.files:
            self._leave()
            return
        manifest = Manifest(self.number, time.time(), cursor, self.files)
        with (self.folder / "_answer").open("wb") as file:
            for held in answer.elements():
                file.write(held)
            _to_disk(file)
        with (self.folder / "_manifest.json").open("wb") as file:
            file.write(json.dumps(asdict(manifest)).encode())
            _to_disk(file)
        bring(self.folder, self.spool.place(self.number), last="_manifest.json")
        self._leave()

    def drop(self) -> None:
        """Leave nothing of it."""
        if self._part is not None:
            self._part.close()
        remove_tree(self.folder)
        self._leave()

    def _leave(self) -> None:
        if isinstance(self.spool.folder, Stored):
            remove_tree(self._beside)

    def _close(self) -> None:
        if self._part is not None:
            self.files[Path(self._part.name).name] = (self._part.tell(), self._records)
            _to_disk(self._part)
            self._part.close()
        self._part, self._records = None, 0


def _to_disk(file: BinaryIO) -> None:
    """A power cut must not leave a name whose content never came to the disk."""
    file.flush()
    os.fsync(file.fileno())
