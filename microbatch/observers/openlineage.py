"""OpenLineage events on their way out: to a server, or to a file with one event a line.

Source:
    OpenLineage's specification 2-0-2; events and facets are the classes of its own Python client.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent

PRODUCER = "urn:microbatch"
ENDPOINT = "api/v1/lineage"
TIMEOUT_S = 3.0  # a run does not wait longer for a server, and does not ask it again in the same run


class Emitter:
    """Sends events to the places that conf names.

    Args:
        url: of the server; its path, where it has one, takes the place of `/api/v1/lineage`.
        file: gets a line an event, added at its end.
    """

    def __init__(self, url: str | None, file: str | None) -> None:
        self._transports = [*([_http(url)] if url else []), *([_file(file)] if file else [])]

    def emit(self, event: RunEvent) -> None:
        """Send one event.

        Raises:
            Exception: whatever the client raises where it cannot be sent.
        """
        for transport in self._transports:
            transport.emit(event)


def _http(url: str) -> Any:
    from openlineage.client.transport.http import HttpConfig, HttpTransport

    parts = urlsplit(url)
    base = urlunsplit((parts.scheme, parts.netloc, "", "", ""))
    endpoint = f"{parts.path.lstrip('/') or ENDPOINT}{f'?{parts.query}' if parts.query else ''}"
    return HttpTransport(HttpConfig(url=base, endpoint=endpoint, timeout=TIMEOUT_S, retry={"total": 0}))


def _file(path: str) -> Any:
    from openlineage.client.transport.file import FileConfig, FileTransport

    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    return FileTransport(FileConfig(log_file_path=path, append=True))
