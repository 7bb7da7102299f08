"""Where files are: the only module that knows one file system from another.

A path of this machine is a `pathlib.Path`. A URI of an object store is a `Stored`, which has those of a path's methods that the
engine uses. What reaches the store is taken from the settings that Spark itself uses (`spark.hadoop.fs.s3a.*`), else from the
environment (`AWS_*`) or the machine's role.

Source:
    Hadoop 3.5, "Connecting to an Amazon S3 bucket through the S3A connector".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from microbatch.errors import ConfigError, Problem, WarehouseUnavailable
from microbatch.stored import Stored, told

# `memory` lives and dies with the process: for tests.
OBJECT_STORES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "memory")
S3A = "spark.hadoop.fs.s3a."
# S3A's setting -> what object_store calls it.
S3_KEYS = {
    "access.key": "aws_access_key_id",
    "secret.key": "aws_secret_access_key",
    "session.token": "aws_session_token",
    "endpoint.region": "aws_region",
}
ANONYMOUS = "AnonymousAWSCredentialsProvider"
AT_A_TIME = 16  # requests

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
_connected: dict[str, str] = {}


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


@contextmanager
def reached(path: str) -> Iterator[None]:
    """What delta-rs says of a store that does not answer, as an error of ours.

    Raises:
        WarehouseUnavailable: so it is.
    """
    try:
        yield
    except OSError as cause:
        if is_local(path):
            raise
        raise WarehouseUnavailable(f"{path} cannot be reached", told(cause)) from cause


def lines_of(text: str) -> list[str]:
    """The lines of a file of Spark's or Delta's: a line feed ends one, and none of the other ends that Python knows, for those
    may stand in a value."""
    return text.removesuffix("\n").split("\n")


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


Place = Path | Stored
