"""An object of an object store, with those of a path's methods that the engine uses; by obstore, without a JVM.

Guarantee:
    What was written is whole or not there, and is seen by whoever looks next. A rename of a folder is a copy and then one
    deletion of all that was copied: killed in between, the old folder is still whole.

Source:
    Amazon S3 manual, "Data consistency model" and "Conditional writes"; obstore and object_store manuals.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from microbatch.errors import ConfigError, Problem, WarehouseUnavailable, shortened

if TYPE_CHECKING:
    from obstore.store import ObjectStore

NO_BUCKET = "there is no such bucket; make it, or mend the URI in conf"
LONGEST_S = 30  # that a request is tried again: what takes longer is left to whoever starts the next run


class Seen(NamedTuple):
    """An object as a listing shows it; `mark` is its ETag, which is another one when the content is."""

    uri: str
    size: int
    modified: datetime
    mark: str


@dataclass(frozen=True, order=True)
class Stored:
    """An object of an object store, or a folder: whatever begins with the URI and a slash."""

    uri: str
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False, compare=False)  # holds secrets

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> Stored:
        return Stored(f"{self.uri}/{name}", self.options)

    @property
    def name(self) -> str:
        return self.uri.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return self.name.rpartition(".")[0] or self.name

    @property
    def parent(self) -> Stored:
        return Stored(self.uri.rpartition("/")[0], self.options)

    def with_name(self, name: str) -> Stored:
        return self.parent / name

    def exists(self) -> bool:
        return self.seen() is not None or self.is_dir()

    def is_dir(self) -> bool:
        """Whether anything lies below it."""
        return next(self.walk(), None) is not None

    def read_bytes(self) -> bytes:
        """Raises FileNotFoundError where there is no such object, as a path does."""
        with self._reached() as (store, key):
            import obstore

            return bytes(obstore.get(store, key).bytes())

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def write_bytes(self, content: bytes) -> None:
        with self._reached() as (store, key):
            import obstore

            obstore.put(store, key, content)

    def write_text(self, text: str) -> None:
        self.write_bytes(text.encode())

    def put(self, content: bytes, instead_of: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """Write it only where it is as the caller knows it, as one step that the store decides.

        Args:
            instead_of: the mark of what is replaced; None: there must be no such object yet.

        Returns:
            The new mark; None where the object is another one by now, and nothing was written.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if instead_of is None else dict(instead_of)
        with self._reached() as (store, key):
            try:
                return _mark(obstore.put(store, key, content, mode=mode))
            except (AlreadyExistsError, PreconditionError):
                return None
            except FileNotFoundError as cause:
                if instead_of is not None:
                    return None  # it was deleted meanwhile
                raise ConfigError(Problem("storage", f"{self.uri} cannot be made: {NO_BUCKET}")) from cause

    def get(self) -> tuple[bytes, Mapping[str, str], datetime] | None:
        """The content, its mark for `put`, and when the store took it, by the store's own clock; None where it is not there."""
        import obstore

        with self._reached() as (store, key):
            try:
                found = obstore.get(store, key)
                return bytes(found.bytes()), _mark(found.meta), found.meta["last_modified"]
            except FileNotFoundError:
                return None

    def seen(self) -> Seen | None:
        """The object as it is now; None where there is none."""
        import obstore

        with self._reached() as (store, key):
            try:
                return _seen(self.uri, obstore.head(store, key))
            except FileNotFoundError:
                return None

    def walk(self) -> Iterator[Seen]:
        """All that lies below, page by page."""
        import obstore

        base = _base(self.uri)
        with self._reached() as (store, key):
            for page in obstore.list(store, prefix=key or None):
                found = (_seen(f"{base}{each['path']}", each) for each in page)
                yield from (each for each in found if not self._is_marker(each))

    def iterdir(self) -> Iterator[Stored]:
        import obstore

        base = _base(self.uri)
        with self._reached() as (store, key):
            found = obstore.list_with_delimiter(store, prefix=key or None)
        objects = [_seen(f"{base}{each['path']}", each) for each in found["objects"]]
        uris = [f"{base}{name}" for name in found["common_prefixes"]]
        uris += [each.uri for each in objects if not self._is_marker(each)]
        return (Stored(uri, self.options) for uri in uris)

    def glob(self, pattern: str) -> Iterator[Stored]:
        """Of a name in this folder; no deeper."""
        return (each for each in self.iterdir() if fnmatchcase(each.name, pattern))

    def open_reader(self) -> BinaryIO:
        """The content as a file that is read in pieces."""
        import obstore

        with self._reached() as (store, key):
            reader: Any = obstore.open_reader(store, key)
            return reader

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """A folder is there when something lies in it."""

    def unlink(self, missing_ok: bool = False) -> None:
        import obstore

        if not missing_ok and self.seen() is None:
            raise FileNotFoundError(2, "no such object", self.uri)
        with self._reached() as (store, key):
            obstore.delete(store, key)

    def rename(self, target: Stored) -> None:
        """Give a folder another name."""
        import obstore

        names = [_key(each.uri) for each in self.walk()]
        with self._reached() as (store, key):
            for name in names:
                obstore.copy(store, name, f"{_key(target.uri)}{name.removeprefix(key)}")
            if names:
                obstore.delete(store, names)

    def remove_tree(self) -> None:
        import obstore

        names = [_key(each.uri) for each in self.walk()]
        with self._reached() as (store, _):
            if names:
                obstore.delete(store, names)

    def _is_marker(self, seen: Seen) -> bool:
        """Whether it is what S3A leaves where it made a folder: an object of no bytes whose name ends in a slash, which obstore
        shows without the slash and can neither read nor delete."""
        return not seen.size and Stored(seen.uri, self.options).seen() is None

    @contextmanager
    def _reached(self) -> Iterator[tuple[ObjectStore, str]]:
        """The store and the object's key in it; what the store says is wrong as an error of ours."""
        from obstore.exceptions import BaseError, NotSupportedError, PermissionDeniedError, UnauthenticatedError

        try:
            yield _store(_base(self.uri), self.options), _key(self.uri)
        except (PermissionDeniedError, UnauthenticatedError, NotSupportedError) as cause:
            raise ConfigError(Problem("storage", f"{self.uri} is refused: {told(cause)}")) from cause
        except BaseError as cause:
            if "NoSuchBucket" in str(cause):
                raise ConfigError(Problem("storage", f"{self.uri} cannot be reached: {NO_BUCKET}")) from cause
            raise WarehouseUnavailable(f"{self.uri} cannot be reached", told(cause)) from cause


def _key(uri: str) -> str:
    return uri.partition("://")[2].partition("/")[2]


def _base(uri: str) -> str:
    """The bucket, with a slash behind it."""
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/"


def _mark(of: Any) -> dict[str, str]:
    return {name: of[name] for name in ("e_tag", "version") if of.get(name)}


def _seen(uri: str, meta: Any) -> Seen:
    return Seen(uri, meta["size"], meta["last_modified"], meta.get("e_tag") or "")


def told(cause: Exception) -> str:
    """What obstore or delta-rs says in a line, without colours and the pages of XML and of Rust behind it."""
    text = re.sub(r"\x1b\[\d+m|↳", "", str(cause)).partition("<?xml")[0].partition("Debug source")[0]
    return shortened(" ".join(text.split()).strip(" :") or "no reason given", 300)


@lru_cache(maxsize=32)
def _store(base: str, options: tuple[tuple[str, str], ...]) -> ObjectStore:
    from obstore.store import MemoryStore, from_url

    if base.startswith("memory:"):
        return MemoryStore()
    config: Any = {name: value for name, value in options if name != "allow_http"}
    return from_url(
        base.rstrip("/"),
        config=config or None,
        client_options={"allow_http": dict(options).get("allow_http") == "true"},
        retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=LONGEST_S)},
    )
