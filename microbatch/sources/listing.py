"""Which files a folder holds, which of them a checkpoint has taken in, and whether those are still as they were.

Plain Python on local paths: a run that finds nothing to do starts no JVM.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from microbatch.errors import SourceUnavailable, StateChanged

NOT_TAKEN_IN = -1  # the size recorded for a file that went to quarantine whole


@dataclass(frozen=True)
class File:
    """A file as it was seen: path, size in bytes, modification time in ms since 1970."""

    path: str
    size: int
    modified_ms: int


def is_local(path: str) -> bool:
    """Whether plain Python can look at the path."""
    return urlsplit(path).scheme in ("", "file")


def local(path: str) -> str:
    """The plain path of a file URI as Spark writes it (percent-encoded), or of a path."""
    return unquote(urlsplit(path).path) if path.startswith("file:") else path


def literal(paths: Sequence[str]) -> list[str]:
    """Paths for a reader of Spark's, which takes `*`, `[` and their like for a pattern: here they are letters.

    Spark's own switch for that (`__globPaths__`) reads all the paths once more for each that has such a letter (Spark 4.2).
    """
    return [re.sub(r"([][*?{}\\\\])", r"\\\1", path) for path in paths]


def files_below(source: str, path: str, pattern: str | None = None) -> dict[str, File]:
    """The files Spark's file source would read: all below the folder, or those a glob names; not `_x`, not `.x`.

    Args:
        pattern: `pathGlobFilter` of the options: only files of such a name.

    Raises:
        SourceUnavailable: the folder is not there, or cannot be read, or a link in it leads outside.
    """
    root = local(path)
    roots = glob.glob(root) if glob.has_magic(root) else [root]
    if not roots or not all(os.path.exists(found) for found in roots):
        raise SourceUnavailable(source, f"{root} is not there; make the folder, or mend `path` in conf")
    try:
        found = {file.path: file for each in roots for file in _walk(os.path.realpath(_fixed(root)), each)}
    except OSError as cause:
        raise SourceUnavailable(source, f"{cause.strerror}: {cause.filename}") from cause
    return {path: file for path, file in found.items() if not pattern or fnmatchcase(os.path.basename(path), pattern)}


def refuse_links(source: str, path: str, files: list[str]) -> None:
    """Stop where a file is a link that leads outside the folder: it came after the folder was looked at.

    Raises:
        SourceUnavailable: naming the first.
    """
    home = os.path.realpath(_fixed(local(path)))
    for file in files:
        if not _inside(home, file):
            raise SourceUnavailable(source, f"{_OUTSIDE}: {file}")


_OUTSIDE = "a link that leads outside the folder is not read; remove it"


def _fixed(root: str) -> str:
    """The part of a path before its first pattern: what it names lies below."""
    while glob.has_magic(root):
        root = os.path.dirname(root)
    return root


def _inside(home: str, path: str) -> bool:
    real = os.path.realpath(path)
    return real == home or real.startswith(home.rstrip(os.sep) + os.sep)


def _unseen(name: str) -> bool:
    """The names Spark passes over; `_day=1` is a partition, and read."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name) or name.endswith("._COPYING_")


def _walk(home: str, path: str) -> Iterator[File]:
    if os.path.islink(path) and not _inside(home, path):
        raise PermissionError(1, _OUTSIDE, path)
    if os.path.isfile(path):
        stat = os.stat(path)
        yield File(path, stat.st_size, stat.st_mtime_ns // 1_000_000)
        return
    with os.scandir(path) as entries:
        for entry in entries:
            if _unseen(entry.name):
                continue
            if entry.is_symlink() and not _inside(home, entry.path):
                raise PermissionError(1, _OUTSIDE, entry.path)
            if entry.is_dir():
                yield from _walk(home, entry.path)
            else:
                stat = entry.stat()
                yield File(entry.path, stat.st_size, stat.st_mtime_ns // 1_000_000)


def logged(checkpoint: Path, after: int, upto: int) -> list[str]:
    """The paths that Spark's source log took in between two log offsets, `after` excluded, `upto` included.

    Raises:
        ValueError: the log has a gap there, or a line of it is damaged; the message names the file.
    """
    paths: list[str] = []
    for number in range(after + 1, upto + 1):
        paths += [
            entry["path"] for entry in _entries(checkpoint / "sources" / "0", number) if entry["batchId"] == number
        ]
    return [local(path) for path in paths]


def _entries(log: Path, number: int) -> list[dict[str, Any]]:
    for name in (str(number), f"{number}.compact"):
        file = log / name
        if file.exists():
            lines = file.read_text().splitlines()
            try:
                return [json.loads(line) for line in lines[1:]]
            except ValueError as cause:
                raise ValueError(f"checkpoint damaged: {file}") from cause
    raise ValueError(f"checkpoint damaged: {log / str(number)} is missing")


class Record:
    """The files each batch of a flow read, as they were then: `<checkpoint>/microbatch/files/<batch>.json`.

    Spark's own log keeps path and time, not the size, and never looks again at a file it has read.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.folder = checkpoint / "microbatch" / "files"

    def keep(self, batch_id: int, files: list[File]) -> None:
        """Record a batch's files; the first record of a batch stands, so that a file changed in between is seen."""
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"{batch_id}.json"
        if not target.exists():
            half = self.folder / f".{batch_id}.json"
            half.write_text(json.dumps([[f.path, f.size, f.modified_ms] for f in files]))
            half.rename(target)

    def forgive(self, batch_id: int, paths: Iterable[str]) -> None:
        """Files that could not be read may be mended in place: they were not taken in, so no change of theirs is a loss."""
        broken = set(paths)
        files = [File(f.path, NOT_TAKEN_IN, 0) if f.path in broken else f for f in self.of(batch_id).values()]
        (self.folder / f"{batch_id}.json").unlink(missing_ok=True)
        self.keep(batch_id, files)

    def refresh(self) -> None:
        """Take every recorded file as it is now: one that changed counts as read, one that vanished is forgotten."""
        for batch_id in sorted(int(record.stem) for record in self.folder.glob("[0-9]*.json")):
            there = [look_at(path) for path in self.of(batch_id) if os.path.exists(path)]
            (self.folder / f"{batch_id}.json").unlink()
            self.keep(batch_id, there)

    def after(self, batch_id: int) -> list[str]:
        """The files that later batches read."""
        batches = sorted(int(record.stem) for record in self.folder.glob("[0-9]*.json"))
        return [path for batch in batches if batch > batch_id for path in self.of(batch)]

    def forget_after(self, batch_id: int) -> None:
        """Forget what later batches read: it is to be read again."""
        for record in self.folder.glob("[0-9]*.json"):
            if int(record.stem) > batch_id:
                record.unlink()

    def of(self, batch_id: int) -> dict[str, File]:
        """The files recorded for a batch; empty where it has no record."""
        target = self.folder / f"{batch_id}.json"
        return {file[0]: File(*file) for file in json.loads(target.read_text())} if target.exists() else {}

    def batches(self) -> int:
        """How many batches have a record."""
        return len(list(self.folder.glob("[0-9]*.json")))

    def all(self) -> dict[str, File]:
        """Every recorded file, by path."""
        if not self.folder.exists():
            return {}
        batches = sorted(int(record.stem) for record in self.folder.glob("[0-9]*.json"))
        return {path: file for batch in batches for path, file in self.of(batch).items()}


def refuse_changed(flow: str, seen: dict[str, File], now: dict[str, File]) -> None:
    """Stop where a file that was read is no longer what was read: what was added to it would never be.

    Raises:
        StateChanged: naming each changed file with its size before and after.
    """
    changed = [
        f"{path} {_told(seen[path], file)}"
        for path, file in sorted(now.items())
        if path in seen
        and seen[path].size != NOT_TAKEN_IN
        and (seen[path].size, seen[path].modified_ms) != (file.size, file.modified_ms)
    ]
    if changed:
        raise StateChanged(
            flow,
            f"changed after it was read: {', '.join(changed[:5])}{' and more' if len(changed) > 5 else ''}",
            "put the file back and land the new content under a new name (write as `_name`, then rename), "
            "or take it as it is with `--accept files`",
        )


def _told(before: File, now: File) -> str:
    if before.size == now.size:
        return f"{now.size} bytes, written again"
    return f"{before.size} -> {now.size} bytes"


def look_at(path: str) -> File:
    """A file as it is now."""
    stat = os.stat(path)
    return File(path, stat.st_size, stat.st_mtime_ns // 1_000_000)
