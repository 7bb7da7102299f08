"""Where files are: the only module that knows one file system from another.

A path of this machine is a `pathlib.Path`. A URI of an object store is a `Stored`, which has those of a path's methods that the
engine uses, and is read and written by obstore, the library of delta-rs, without a JVM. What reaches the store is taken from
the same Spark settings that Spark uses (`spark.hadoop.fs.s3a.*`), else from the environment (`AWS_*`) or the machine's role.

Guarantee:
    What was written is whole or not there, and is seen by whoever looks next. A rename of a folder is a copy and then one
    deletion of all that was copied: killed in between, the old folder is still whole.

Source:
    Amazon S3 manual, "Data consistency model" and "Conditional writes"; Hadoop 3.5, "Connecting to an S3 bucket through the S3A
    connector"; obstore and object_store manuals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from microbatch.errors import ConfigError, Problem, WarehouseUnavailable, shortened

if TYPE_CHECKING:
    from obstore.store import ObjectStore

OBJECT_STORES = (
    "s3",
    "s3a",
    "gs",
    "az",
    "abfs",
    "abfss",
    "memory",
)  # `memory` lives and dies with the process: for tests
S3A = "spark.hadoop.fs.s3a."
# S3A's setting -> what object_store calls it.
S3_KEYS = {
    "access.key": "aws_access_key_id",
    "secret.key": "aws_secret_access_key",
    "session.token": "aws_session_token",
    "endpoint.region": "aws_region",
}
ANONYMOUS = "AnonymousAWSCredentialsProvider"
LONGEST_S = 30  # that a request is tried again: what takes longer is left to whoever starts the next run

AT_A_TIME = 16  # requests

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
_connected: dict[str, str] = {}


class Seen(NamedTuple):
    """An object as a listing shows it; `mark` is its ETag, which is another one when the content is."""

    uri: str
    size: int
    modified: datetime
    mark: str


def connect(settings: Mapping[str, str]) -> None:
    """Take what reaches the object stores from the Spark settings of a suite; those of the suite loaded last hold."""
    _connected.clear()
    _connected.update({key.removeprefix(S3A): value for key, value in settings.items() if key.startswith(S3A)})


def is_local(path: str) -> bool:
    """Whether it is a path of this machine."""
    return urlsplit(path).scheme in ("", "file")


def is_seen(path: str) -> bool:
    """Whether plain Python can look at the path; where it cannot, only Spark can."""
    return is_local(path) or path.partition("://")[0] in OBJECT_STORES


def plain(uri: str) -> str:
    """The path, or the URI with plain letters, of a URI as Spark writes it (percent-encoded)."""
    if uri.startswith("file:"):
        return unquote(urlsplit(uri).path)
    return uri if is_local(uri) else unquote(uri)


def place(path: str) -> Place:
    """A path or a URI, as a thing that can be read and written.

    Raises:
        ConfigError: no plain Python reaches that file system.
    """
    if is_local(path):
        return Path(plain(path))
    if not is_seen(path):
        what = (
            f"{path} is out of reach without Spark; write a path, or a URI that begins {', '.join(OBJECT_STORES[:-1])}"
        )
        raise ConfigError(Problem("storage", what))
    return Stored(path.rstrip("/"), tuple(sorted((storage_options(path) or {}).items())))


def storage_options(path: str) -> dict[str, str] | None:
    """What delta-rs and obstore are given to reach a path; None for one of this machine."""
    if is_local(path):
        return None
    scheme, _, rest = path.partition("://")
    if scheme not in ("s3", "s3a"):
        return {}
    of_bucket = f"bucket.{rest.partition('/')[0]}."
    own = {key.removeprefix(of_bucket): value for key, value in _connected.items() if key.startswith(of_bucket)}
    given = {**_connected, **own}
    options = {name: given[key] for key, name in S3_KEYS.items() if given.get(key)}
    if endpoint := given.get("endpoint"):
        secure = given.get("connection.ssl.enabled", "true") != "false"
        endpoint = endpoint if "://" in endpoint else f"http{'s' if secure else ''}://{endpoint}"
        options["aws_endpoint_url"] = endpoint.rstrip("/")
        if endpoint.startswith("http://"):
            options["allow_http"] = "true"
    if given.get("aws.credentials.provider", "").endswith(ANONYMOUS):
        options["aws_skip_signature"] = "true"
    return options


def write(file: Place, text: str) -> None:
    """Write a file whole, in place of what it held: nobody sees a half of it, whenever the process is killed."""
    if isinstance(file, Stored):
        file.write_text(text)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f".{file.name}.half")
    half.write_text(text)
    half.replace(file)


def open_reader(file: Place) -> AbstractContextManager[Any]:
    """A file to be read in pieces."""
    if isinstance(file, Stored):
        return closing(file.open_reader())
    return file.open("rb")


def renamed(folder: Place, name: str) -> None:
    """Give a folder another name, beside where it is."""
    if isinstance(folder, Stored):
        folder.rename(folder.with_name(name))
    else:
        folder.rename(folder.with_name(name))


def bring(folder: Path, to: Place, last: str) -> None:
    """Bring a folder of this machine to its place; into an object store file for file, the one that says it is whole last."""
    if isinstance(to, Path):
        folder.rename(to)
        return
    for file in sorted(folder.iterdir(), key=lambda each: each.name == last):
        (to / file.name).write_bytes(file.read_bytes())


def remove_tree(folder: Place) -> None:
    """Remove a folder and all below it; nothing where it is not there."""
    if isinstance(folder, Stored):
        folder.remove_tree()
        return
    import shutil  # 15 ms that an idle run does not pay

    shutil.rmtree(folder, ignore_errors=True)


def each_of(where: Place, ask: Callable[[Asked], Answer], of: Sequence[Asked]) -> list[Answer]:
    """The answers, in order: one after the other on a disk, several at a time from an object store, which answers late."""
    if isinstance(where, Path) or len(of) < 2:
        return [ask(each) for each in of]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(ask, of))


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

    def read_text(self, errors: str = "strict") -> str:
        return self.read_bytes().decode(errors=errors)

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
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                return None

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

        base = self.uri[: len(self.uri) - len(_key(self.uri))]
        with self._reached() as (store, key):
            for page in obstore.list(store, prefix=key or None):
                yield from (_seen(f"{base}{each['path']}", each) for each in page)

    def iterdir(self) -> Iterator[Stored]:
        import obstore

        base = self.uri[: len(self.uri) - len(_key(self.uri))]
        with self._reached() as (store, key):
            found = obstore.list_with_delimiter(store, prefix=key or None)
        names = [*found["common_prefixes"], *(each["path"] for each in found["objects"])]
        return (Stored(f"{base}{name}", self.options) for name in names)

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

    @contextmanager
    def _reached(self) -> Iterator[tuple[ObjectStore, str]]:
        """The store and the object's key in it; what the store says is wrong as an error of ours."""
        from obstore.exceptions import BaseError, NotSupportedError, PermissionDeniedError, UnauthenticatedError

        try:
            yield _store(self.uri[: len(self.uri) - len(_key(self.uri))], self.options), _key(self.uri)
        except (PermissionDeniedError, UnauthenticatedError, NotSupportedError) as cause:
            raise ConfigError(Problem("storage", f"{self.uri} is refused: {_told(cause)}")) from cause
        except BaseError as cause:
            raise WarehouseUnavailable(f"{self.uri} cannot be reached", _told(cause)) from cause


Place = Path | Stored


def _key(uri: str) -> str:
    return uri.partition("://")[2].partition("/")[2]


def _mark(of: Any) -> dict[str, str]:
    return {name: of[name] for name in ("e_tag", "version") if of.get(name)}


def _seen(uri: str, meta: Any) -> Seen:
    return Seen(uri, meta["size"], meta["last_modified"], meta.get("e_tag") or "")


def _told(cause: Exception) -> str:
    """The first line of what obstore says, without the pages of XML and of Rust behind it."""
    return shortened((str(cause).splitlines() or ["no reason given"])[0].partition(": <?xml")[0], 300)


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
