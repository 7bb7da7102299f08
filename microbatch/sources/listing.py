"""Which files a folder holds, which of them a checkpoint has taken in, and whether those are still as they were.

Plain Python, on a disk and on an object store: a run that finds nothing to do starts no JVM.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from microbatch.errors import SourceUnavailable, StateChanged
from microbatch.places import Place, each_of, is_local, lines_of, place, plain
from microbatch.stored import Seen, Stored

NOT_TAKEN_IN = -1  # the size recorded for a file that went to quarantine whole


@dataclass(frozen=True)
class File:
    """A file as it was seen: path, size in bytes, modification time in ms since 1970, and on an object store its ETag."""

    path: str
    size: int
    modified_ms: int
    mark: str = ""

    def is_still(self, now: File) -> bool:
        """Whether it holds what it held: the ETag says so for certain, elsewhere size and time do."""
        if self.mark and now.mark:
            return (self.size, self.mark) == (now.size, now.mark)
        return (self.size, self.modified_ms) == (now.size, now.modified_ms)

    def as_recorded(self) -> list[str | int]:
        return [self.path, self.size, self.modified_ms, *([self.mark] if self.mark else [])]


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
        SourceUnavailable: the folder is not there, or cannot be read, or a link in it leads outside. On an object store a
            folder is there when something lies in it, be it an object of such a name that is not read (`_keep`).
    """
    found = _local_files(source, path) if is_local(path) else _stored_files(source, path)
    return {path: file for path, file in found.items() if not pattern or fnmatchcase(os.path.basename(path), pattern)}


def _local_files(source: str, path: str) -> dict[str, File]:
    root = plain(path)
    roots = glob.glob(root) if glob.has_magic(root) else [root]
    if not roots or not all(os.path.exists(found) for found in roots):
        raise SourceUnavailable(source, f"{root} is not there; make the folder, or mend `path` in conf")
    try:
        return {file.path: file for each in roots for file in _walk(os.path.realpath(_fixed(root)), each)}
    except OSError as cause:
        raise SourceUnavailable(source, f"{cause.strerror}: {cause.filename}") from cause


def _stored_files(source: str, path: str) -> dict[str, File]:
    fixed = place(_fixed(path))
    assert isinstance(fixed, Stored)
    wanted, found, there = path.split("/"), {}, False
    whole = fixed.seen() if str(fixed) == path else None  # `path` may name one object
    for seen in (whole,) if whole else fixed.walk():
        names = seen.uri.split("/")
        # Part for part, as a pattern of Spark's: `*` stands for no slash. What lies below a folder it names is read too.
        if len(names) < len(wanted) or not all(map(fnmatchcase, names, wanted)):
            continue
        there = True
        if not any(_unseen(name) for name in names[len(wanted) :] or names[-1:]):
            found[seen.uri] = _of_seen(seen)
    if not there:
        raise SourceUnavailable(source, f"nothing lies at {path}; land a file, or mend `path` in conf")
    return found


def _of_seen(seen: Seen) -> File:
    return File(seen.uri, seen.size, int(seen.modified.timestamp()) * 1000, seen.mark)


def refuse_links(source: str, path: str, files: list[str]) -> None:
    """Stop where a file is a link that leads outside the folder: it came after the folder was looked at.

    Raises:
        SourceUnavailable: naming the first.
    """
    if not is_local(path):
        return  # an object store has no links
    home = os.path.realpath(_fixed(plain(path)))
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


def logged(checkpoint: Place, after: int, upto: int) -> list[str]:
    """The paths that Spark's source log took in between two log offsets, `after` excluded, `upto` included.

    Raises:
        ValueError: the log has a gap there, or a line of it is damaged; the message names the file.
    """
    paths: list[str] = []
    for number in range(after + 1, upto + 1):
        paths += [
            entry["path"] for entry in _entries(checkpoint / "sources" / "0", number) if entry["batchId"] == number
        ]
    return [plain(path) for path in paths]


def _entries(log: Place, number: int) -> list[dict[str, Any]]:
    for name in (str(number), f"{number}.compact"):
        file = log / name
        if file.exists():
            lines = lines_of(file.read_text("utf-8"))
            try:
                return [json.loads(line) for line in lines[1:]]
            except ValueError as cause:
                raise ValueError(f"checkpoint damaged: {file}") from cause
    raise ValueError(f"checkpoint damaged: {log / str(number)} is missing")


def refuse_changed(flow: str, seen: dict[str, File], now: dict[str, File]) -> None:
    """Stop where a file that was read is no longer what was read: what was added to it would never be.

    Raises:
        StateChanged: naming each changed file with its size before and after.
    """
    changed = [
        f"{path} {_told(seen[path], file)}"
        for path, file in sorted(now.items())
        if path in seen and seen[path].size != NOT_TAKEN_IN and not seen[path].is_still(file)
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


def look_at(path: str) -> File | None:
    """A file as it is now; None where it is gone."""
    if is_local(path):
        try:
            stat = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return File(path, stat.st_size, stat.st_mtime_ns // 1_000_000)
    file = place(path)
    assert isinstance(file, Stored)
    seen = file.seen()
    return _of_seen(seen) if seen else None


def look_at_each(paths: Sequence[str]) -> dict[str, File | None]:
    """Files as they are now, by path; of an object store several are asked for at a time."""
    if not paths:
        return {}
    return dict(zip(paths, each_of(place(paths[0]), look_at, paths), strict=True))
