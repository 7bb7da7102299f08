"""Where the sources of a suite are, and whether something answers there: a TCP connection, no more, and no name or password.

What a kind of source needs to be reached is one line of `PLACES`.
"""

from __future__ import annotations

import glob
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from microbatch.config import Connection, SourceConf
from microbatch.config.values import is_uri

TIMEOUT_S = 3.0
POSTGRES_PORT, KAFKA_PORT = 5432, 9092
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Place:
    """Something that must be there for a source to be read: host and port, a socket file or a folder.

    Attributes:
        port: None where `host` is a path.
    """

    host: str
    port: int | None = None
    socket: bool = False

    def __str__(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"

    def trouble(self) -> str | None:
        """Why nothing can be read there; None where something answers."""
        try:
            if self.port is not None:
                socket.create_connection((self.host, self.port), TIMEOUT_S).close()
            elif self.socket:
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.settimeout(TIMEOUT_S)
                    connection.connect(self.host)
            elif not glob.glob(self.host):
                return "is not there"
        except TimeoutError:
            return f"does not answer within {TIMEOUT_S:g} s"
        except OSError as cause:
            return f"does not answer: {cause.strerror or cause}"
        return None


def places(conf: SourceConf, connection: Connection | None) -> list[Place]:
    """Where a source is; empty where nothing is known of its kind."""
    return PLACES.get(conf.kind, _nowhere)(conf, connection)


def reached(of: Iterable[Place]) -> tuple[bool, str]:
    """Whether one of the places answers (servers stand in for one another), and what is said of it."""
    troubles = []
    for place in of:
        trouble = place.trouble()
        if trouble is None:
            return True, str(place)
        troubles.append(f"{place} {trouble}")
    return False, "; ".join(troubles)


def _nowhere(_: SourceConf, __: Connection | None) -> list[Place]:
    return []


def _folder(conf: SourceConf, _: Connection | None) -> list[Place]:
    path = getattr(conf, "path", None)
    return [Place(path)] if isinstance(path, str) and not is_uri(path) else []


def _database(__: SourceConf, connection: Connection | None) -> list[Place]:
    """Source: PostgreSQL manual, "Connection URIs": several hosts, and a socket's folder as the parameter `host`."""
    parts = urlsplit(connection.uri if connection and connection.uri else "")
    asked = parse_qs(parts.query)
    port = asked.get("port", [str(POSTGRES_PORT)])[0]
    hosts = [host for host in parts.netloc.rpartition("@")[2].split(",") if host]
    hosts = hosts or asked.get("host", [""])[0].split(",")
    found = []
    for host in hosts:
        name, _, given = host.rpartition(":") if ":" in host.rpartition("]")[2] else (host, "", port)
        name = unquote(name.strip("[]"))
        if name.startswith("/"):
            found.append(Place(os.path.join(name, f".s.PGSQL.{given}"), socket=True))
        elif name:
            found.append(Place(name, int(given) if given.isdigit() else POSTGRES_PORT))
    return found


def _brokers(conf: SourceConf, connection: Connection | None) -> list[Place]:
    written = getattr(conf, "servers", None) or (connection.servers if connection else None) or ()
    servers = written.split(",") if isinstance(written, str) else written
    found = []
    for server in servers:
        host, _, port = server.strip().rpartition(":") if ":" in server else (server.strip(), "", "")
        found.append(Place(host.strip("[]"), int(port) if port.isdigit() else KAFKA_PORT))
    return found


def _server(conf: SourceConf, connection: Connection | None) -> list[Place]:
    parts = urlsplit(getattr(conf, "url", None) or (connection.url if connection else None) or "")
    return [Place(parts.hostname, parts.port or _PORTS.get(parts.scheme, 443))] if parts.hostname else []


PLACES: Mapping[str, Callable[[SourceConf, Connection | None], list[Place]]] = {
    "files": _folder,
    "delta": _folder,
    "postgres": _database,
    "kafka": _brokers,
    "rest": _server,
}
