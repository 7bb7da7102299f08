"""A real API over HTTP on this machine, which can be told to misbehave."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from microbatch.retry import with_back_off
from microbatch.sources.rest import Asked, Rest, Server, Spooled


@dataclass
class Request:
    """A request as the server got it."""

    path: str
    params: dict[str, str]
    headers: dict[str, str]


@dataclass
class Answer:
    """What the server says; `sent` is how many bytes of the body go out before the connection is cut."""

    body: bytes | str = b"[]"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: int | None = None
    length: bool = True


TOO_MANY = Answer("slow down", 429, {"retry-after": "0"})
AWAY = Answer("<html>maintenance</html>", 503, {"content-type": "text/html"})
HTML = Answer("<html>please sign in</html>", 200, {"content-type": "text/html"})
NOTHING = Answer(sent=-1)


def cut(answer: Answer) -> Answer:
    """Half of an answer, of which the client can count what is missing."""
    return Answer(answer.body, answer.status, answer.headers, sent=len(answer.body) // 2)


def cut_unseen(answer: Answer) -> Answer:
    """Half of an answer whose length nobody told."""
    return Answer(answer.body[: len(answer.body) // 2], answer.status, answer.headers, length=False)


class Api:
    """A server; `answer` says what a request gets.

    Attributes:
        asked: every request, in order.
        faults: what the next requests get instead, the first first; None: what they should get.
        share: of the requests, how many get one of the usual faults instead.
    """

    def __init__(self, seed: int = 7) -> None:
        self.answer: Callable[[Request], Answer] = lambda request: Answer()
        self.asked: list[Request] = []
        self.faults: list[Answer | None] = []
        self.share, self._random = 0.0, random.Random(seed)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._serve(self)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def records(self, *texts: str) -> None:
        """Answer each request with this list: records as the texts they are."""
        self.answer = lambda request: Answer(f"[{', '.join(texts)}]")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        request = Request(parts.path, dict(parse_qsl(parts.query)), headers)
        self.asked.append(request)
        fault = self.faults.pop(0) if self.faults else None
        answer = fault or self._usual(self.answer(request))
        if answer.sent == -1:
            handler.connection.close()
            return
        body = answer.body.encode() if isinstance(answer.body, str) else answer.body
        handler.send_response(answer.status)
        sent = {"content-type": "application/json", **answer.headers}
        for name, value in {**sent, **({"content-length": str(len(body))} if answer.length else {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body[: answer.sent])

    def _usual(self, answer: Answer) -> Answer:
        if self._random.random() >= self.share:
            return answer
        return self._random.choice([TOO_MANY, AWAY, HTML, NOTHING, cut(answer), cut_unseen(answer)])


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api()
    yield made
    made.close()


@pytest.fixture
def other() -> Iterator[Api]:
    """A second server: to a client it is another host, for its port is another."""
    made = Api()
    yield made
    made.close()


Make = Callable[..., Rest]


@pytest.fixture
def rest(api: Api, tmp_path: Path) -> Make:
    """An input over the server: `rest(paging=…, server={"bearer": …}, attempts=…)`; its checkpoint stays the test's own."""

    def make(server: Mapping[str, Any] = {}, attempts: int = 3, max_wait_s: float = 1, **asked: Any) -> Rest:
        again = partial(
            with_back_off, attempts=attempts, first_wait_s=0.01, max_wait_s=max_wait_s, told=lambda line: None
        )
        checkpoint = tmp_path / "checkpoint"
        return Rest(
            "rates",
            "take",
            "id BIGINT",
            Spooled(str(checkpoint / "spool"), False, "ignore"),
            checkpoint,
            server=Server(api.url, **server),
            asked=Asked(f"{api.url}/v1/rates", **asked),
            again=again,
        )

    return make


def lines(source: Rest) -> list[str]:
    """What is in the spool, fetch after fetch."""
    files = [path for each in source.spool.all() for path in source.spool.paths(each)]
    return [line for path in files for line in Path(path).read_bytes().decode().splitlines()]


def ids(source: Rest) -> list[int]:
    """The ids of the records in the spool, in their order."""
    return [json.loads(line)["id"] for line in lines(source)]


def listing(records: list[dict[str, Any]], size: int, cap: int | None = None) -> Callable[[Request], Answer]:
    """A server that gives so many records a page, whichever of the four ways it is asked.

    Args:
        cap: gives at most so many, whatever it is asked for.
    """

    def answer(request: Request) -> Answer:
        params = request.params
        count = min(int(params.get("limit", size)), cap or size)
        by_page = (int(params.get("page", 1)) - 1) * count
        start = by_page or int(params.get("offset", params.get("after", 0)))
        page, end = records[start : start + count], start + count
        more = end < len(records)
        body = {"data": {"items": page}, "next": str(end) if more else None, "url": f"?after={end}" if more else ""}
        link = {"link": f'</v1/rates?after={end}>; rel="next", </v1/rates>; rel="first"'} if more else {}
        return Answer(json.dumps(body), headers=link)

    return answer
