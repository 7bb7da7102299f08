"""One PostgreSQL server: where it is, how to sign in, and its errors as the engine's own.

libpq repeats a connection string that it cannot read in its message, password and all. So the string is taken apart here,
and every text that comes back is searched for the password by value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from microbatch.errors import (
    BatchFailed,
    ConfigError,
    MicrobatchError,
    Problem,
    SourceUnavailable,
    StateChanged,
    redacted,
    shortened,
)

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

APPLICATION = "microbatch"
# What a server that is gone without a word costs at most: PostgreSQL manual, "Parameter Key Words".
PATIENCE = {"connect_timeout": "10", "keepalives_idle": "30", "keepalives_interval": "10", "tcp_user_timeout": "60000"}
# Values as text come out the same for every role and server: PostgreSQL manual, "Client Connection Defaults".
SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "1",
    "bytea_output": "hex",
}
# libpq gives no SQLSTATE for what fails while it connects, so the words have to do; those of a server that speaks another
# language are taken for a server that is down.
REFUSALS = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
    "is not permitted to log in",
    "certificate",
    "does not support SSL",
    "authentication failed",
)
PASSING_STATES = ("08", "40", "53", "57", "55006", "55P03", "25006")
CONFIG_STATES = ("28", "3D", "42", "3F", "0A", "22023")
NO_WAL = "58P01"
# Not in the state it has to be in: a slot for good, anything else (a view that is not filled yet) until somebody sees to it.
UNFIT_STATE, FOR_GOOD = "55000", "replication slot"
PRIMARY = "connect to the primary (target_session_attrs=read-write in the uri finds it among several hosts)"


@dataclass(frozen=True)
class Server:
    """A server as one source of one flow uses it. Travels to the executors, and nowhere else.

    Attributes:
        source, flow, connection: names, for messages.
        uri: libpq's, with or without a scheme.
        options: further parameters of libpq's, such as sslmode.
    """

    source: str
    flow: str
    connection: str
    uri: str = field(repr=False)
    options: Mapping[str, str | int | bool] = field(default_factory=dict, repr=False)

    def parameters(self) -> dict[str, str]:
        """Parameter key words of libpq's.

        Raises:
            ConfigError: the connection has no uri, or one that cannot be read.
        """
        given = _parameters(self.uri)
        if given is None:
            what = (
                "has no uri that can be read; write postgresql://user:password@host:5432/database, with what is not a "
                "letter or a digit in the password percent-encoded"
            )
            raise ConfigError(Problem(f"connection {self.connection}", what))
        more = {name: _text(value) for name, value in self.options.items()}
        return {**PATIENCE, **given, **more, "application_name": APPLICATION, "client_encoding": "UTF8"}

    def secrets(self) -> tuple[str, ...]:
        """What no text may show."""
        given = _parameters(self.uri) or {}
        options = [_text(value) for name, value in self.options.items() if "password" in name]
        written = self.uri.partition("://")[2].rpartition("@")[0].partition(":")[2]
        return tuple(part for part in {self.uri, given.get("password", ""), written, *options} if len(part) > 3)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A connection for a few small statements, each a transaction of its own.

        Raises:
            SourceUnavailable: it did not answer, or the connection was cut.
            ConfigError: it refuses the role, or knows no such table, column, database.
        """
        import psycopg
        from psycopg.conninfo import make_conninfo

        with self.errors():
            made = psycopg.connect(make_conninfo("", **self.parameters()), autocommit=True)
            with made as connection:
                connection.execute(_settings())
                yield Session(connection)

    def batches(self, select: str, snapshot: str | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of a query in blocks of about 16 MB, while the server sends them.

        Args:
            snapshot: one that another session has exported, to see what that one sees.

        Raises:
            SourceUnavailable, ConfigError: as for `session`.
        """
        # Not the driver's DBAPI: that imports pandas, 0.3 s in each process that reads.
        from adbc_driver_manager import AdbcConnection, AdbcStatement
        from adbc_driver_postgresql import connect
        from psycopg.conninfo import make_conninfo
        from pyarrow import RecordBatchReader

        before = [_settings()]
        if snapshot is not None:
            before += [
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
                f"SET TRANSACTION SNAPSHOT {literal(snapshot)}",
            ]
        with (
            self.errors(),
            connect(make_conninfo("", **self.parameters())) as database,
            AdbcConnection(database) as connection,
        ):
            for statement in before:
                with AdbcStatement(connection) as asked:
                    asked.set_sql_query(statement)
                    asked.execute_update()
            with AdbcStatement(connection) as asked:
                asked.set_sql_query(select)
                blocks = RecordBatchReader.from_stream(asked.execute_query()[0])
                while (block := _next(self, blocks)) is not None:
                    yield block

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What a driver raises, as an error of the engine's without a secret in it."""
        try:
            yield
        except MicrobatchError:
            raise
        except Exception as cause:
            error = self.translated(cause)
            if error is None:
                raise
            raise error from None  # the cause's own text may hold what must not be shown

    def translated(self, cause: BaseException) -> MicrobatchError | None:
        """What an error of a driver means; None for one that is not a driver's."""
        if type(cause).__module__.partition(".")[0] not in ("psycopg", "adbc_driver_manager"):
            return None
        state = getattr(cause, "sqlstate", None) or ""
        text = _line(redacted(str(cause), self.secrets()))
        if not state or state.startswith(PASSING_STATES):
            if not state and any(words in text for words in REFUSALS):
                return ConfigError(Problem(f"connection {self.connection}", f"refuses to connect: {text}"))
            return SourceUnavailable(self.source, text)
        if state == NO_WAL or (state == UNFIT_STATE and FOR_GOOD in text):
            return StateChanged(self.flow, f"source {self.source}: {text}", START_ANEW)
        if state == UNFIT_STATE:
            return SourceUnavailable(self.source, text)
        if state.startswith(CONFIG_STATES):
            return ConfigError(Problem(f"source {self.source}", text))
        return BatchFailed(self.flow, None, f"source {self.source}: {text} (SQLSTATE {state})")


START_ANEW = "read the table anew with `--accept checkpoint` (an Append doubles what it holds)"


@dataclass(frozen=True)
class Session:
    """A connection for small statements."""

    connection: psycopg.Connection[tuple[Any, ...]]

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a statement; `%s` stands for a value."""
        return self.connection.execute(statement.encode(), values or None).fetchall()

    def row(self, statement: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of a statement, or None."""
        return next(iter(self.rows(statement, *values)), None)

    def value(self, statement: str, *values: Any) -> Any:
        """The one value of a statement, or None."""
        found = self.row(statement, *values)
        return found[0] if found else None

    def do(self, statement: str, *values: Any) -> None:
        """A statement whose result nobody wants."""
        self.connection.execute(statement.encode(), values or None)


def quoted(*names: str) -> str:
    """An identifier, with as many parts as names."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def literal(text: str) -> str:
    """A constant."""
    plain = "'" + text.replace("'", "''") + "'"
    return "E" + plain.replace("\\", "\\\\") if "\\" in text else plain


def _next(server: Server, blocks: pa.RecordBatchReader) -> pa.RecordBatch | None:
    """The next block, or None. What the driver says while it sends reaches Python as an error of Arrow's."""
    from pyarrow import ArrowException

    try:
        return blocks.read_next_batch()
    except StopIteration:
        return None
    except (OSError, ArrowException) as cause:
        raise SourceUnavailable(server.source, _line(redacted(str(cause), server.secrets()))) from None


def _settings() -> str:
    made = ", ".join(f"set_config({literal(name)}, {literal(value)}, false)" for name, value in SETTINGS.items())
    return f"SELECT {made}"


def _parameters(uri: str) -> dict[str, str] | None:
    """The parameters of a connection string, or None where it cannot be read."""
    if not uri.strip():
        return None
    if "://" not in uri:
        return _key_words(uri)
    scheme, _, rest = uri.partition("://")
    if scheme not in ("postgresql", "postgres"):
        return None
    # A password may hold an @, and a socket's folder a /: the last @ before the path ends the role.
    role, at, place = rest.rpartition("@") if "@" in rest.partition("?")[0] else ("", "", rest)
    if at and "/" in role:
        return None
    place, _, query = place.partition("?")
    hosts, _, database = place.partition("/")
    user, _, password = role.partition(":")
    found = {"user": unquote(user), "password": unquote(password), "dbname": unquote(database)}
    parts = [_host(each) for each in hosts.split(",")]
    if any(part is None for part in parts):
        return None
    known = [part for part in parts if part]
    if any(host for host, _ in known):
        found["host"] = ",".join(unquote(host) for host, _ in known)
    if any(port for _, port in known):
        found["port"] = ",".join(port for _, port in known)
    try:
        found |= dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        return None
    return {name: value for name, value in found.items() if value}


def _host(text: str) -> tuple[str, str] | None:
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, ""
    if (port and not port.isdigit()) or (":" in host and not host.startswith("[")):
        return None
    return host.strip("[]"), port


def _key_words(text: str) -> dict[str, str] | None:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        return {name: str(value) for name, value in conninfo_to_dict(text).items() if value is not None}
    except psycopg.Error:
        return None


def _text(value: str | int | bool) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _line(text: str) -> str:
    """A driver's message as one line, without where in the statement it was."""
    lines = [each.strip() for each in text.splitlines() if each.strip()]
    told: Sequence[str] = [each for each in lines if not each.startswith(("LINE ", "^", "Multiple connection"))]
    return shortened("; ".join(told[:3]) or "no message", 300)
