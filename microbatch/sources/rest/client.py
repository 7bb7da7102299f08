"""One page over HTTP: signed in, paced, whole, and tried again by itself where it may come the next time.

Credentials go to the server that conf names and to no other, wherever a redirect or a link leads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from microbatch.errors import ConfigError, MicrobatchError, Problem, SourceUnavailable, shortened
from microbatch.retry import Pace
from microbatch.sources.rest.pages import Page

if TYPE_CHECKING:
    import httpx

REDIRECTS = 10  # more of them are a circle
NO_CONTENT = 204  # RFC 9110: the one answer that has no body because it is to have none
LATER = (408, 425, 429)  # RFC 9110 and 6585: the same request may work later, as it may after any 5xx
REFUSED = {401: "the credentials are missing or wrong", 403: "these credentials may not read it"}

Again = Callable[[Callable[[], Page]], Page]


@dataclass(frozen=True)
class Server:
    """Where an API is and how to sign in.

    Attributes:
        headers: beside those that ask for JSON; credentials, as they may hold a key.
        timeout_s: to connect, and between two bytes of an answer.
        rate_per_s: requests a second at most; None: as fast as it answers.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    bearer: str | None = field(default=None, repr=False)
    basic: tuple[str, str] | None = field(default=None, repr=False)
    timeout_s: float = 30
    rate_per_s: float | None = None


class Client:
    """A connection to a server, for one fetch.

    Args:
        source: its name, for messages.
        again: calls what it is given until it works, or waiting is no use.
    """

    def __init__(self, source: str, server: Server, again: Again) -> None:
        import httpx  # 0.15 s that a run without an API does not pay

        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs each URL, and with it a key among the parameters
        self.source, self.server, self._again = source, server, again
        self._home = httpx.URL(server.url)
        self._client = httpx.Client(timeout=server.timeout_s, follow_redirects=False)
        self._pace = Pace(server.rate_per_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def page(self, url: str, params: Mapping[str, str]) -> tuple[Page, httpx.Response]:
        """The page at a URL, which may be relative to the server's.

        Raises:
            SourceUnavailable: it did not come, or not whole, after all tries.
            ConfigError: the server refuses, or does not know what is asked for. Never tried again.
        """
        whole = self._home.join(url).copy_merge_params(dict(params)) if params else self._home.join(url)
        came: list[httpx.Response] = []

        def once() -> Page:
            came[:] = [self._answer(whole)]
            return self._understood(came[0])

        return self._again(once), came[0]

    def _answer(self, url: httpx.URL) -> httpx.Response:
        import httpx

        try:
            for _ in range(REDIRECTS):
                self._pace.wait()
                answer = self._client.send(self._request(url))
                if not answer.has_redirect_location:
                    return answer
                url = answer.url.join(answer.headers["location"])
        except (httpx.TransportError, httpx.DecodingError) as cause:
            raise self._away(url, f"{type(cause).__name__}: {shortened(str(cause), 200)}") from cause
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as cause:
            raise self._refused(url, f"leads to a URL that cannot be asked: {cause}") from cause
        raise self._refused(url, f"redirects more than {REDIRECTS} times")

    def _request(self, url: httpx.URL) -> httpx.Request:
        import httpx

        headers = {"accept": "application/json"}
        auth: Any = None
        if self._is_home(url):
            headers |= {name.lower(): value for name, value in self.server.headers.items()}
            if self.server.bearer:
                headers["authorization"] = f"Bearer {self.server.bearer}"
            auth = httpx.BasicAuth(*self.server.basic) if self.server.basic else None
        request = self._client.build_request("GET", url, headers=headers)
        return next(auth.sync_auth_flow(request)) if auth else request

    def _is_home(self, url: httpx.URL) -> bool:
        """Whether credentials may go there: the same host and port, or the same host's secure one instead of the plain one."""
        if url.host != self._home.host:
            return False
        ports = {"http": 80, "https": 443}
        origins = [(each.scheme, each.port or ports.get(each.scheme)) for each in (self._home, url)]
        return origins[0] == origins[1] or origins == [("http", 80), ("https", 443)]

    def _understood(self, answer: httpx.Response) -> Page:
        status, url = answer.status_code, answer.url
        asked_s = retry_after_s(answer.headers.get("retry-after"), datetime.now(timezone.utc))
        if status in LATER or status >= 500 or (status == 403 and asked_s):
            raise self._away(url, f"answered {status} {answer.reason_phrase}", asked_s)
        if status in REFUSED:
            raise self._refused(url, f"answered {status}: {REFUSED[status]}; see auth and headers in conf")
        if status >= 300:
            raise self._refused(url, f"answered {status} {answer.reason_phrase}; see url, path and params in conf")
        try:
            page = Page.of(answer.content)
        except ValueError as cause:  # a page of HTML in its place, or half of it: the next one may be right
            kind = answer.headers.get("content-type", "no content type")
            raise self._away(url, f"answered {status} with what is not JSON ({kind}): {cause}") from cause
        if not page.text and status != NO_CONTENT:  # cut off behind its headers, it would pass for the last page
            raise self._away(url, f"answered {status} without a body, as only {NO_CONTENT} may")
        return page

    def _away(self, url: httpx.URL, why: str, asked_s: float = 0) -> MicrobatchError:
        error = SourceUnavailable(self.source, f"{place(url)}: {why}")
        error.wait_s = asked_s
        return error

    def _refused(self, url: httpx.URL, why: str) -> ConfigError:
        return ConfigError(Problem(f"source {self.source}", f"{place(url)} {why}"))


def place(url: httpx.URL) -> str:
    """A URL for a message: without user, password and parameters, any of which may be a secret."""
    return str(url.copy_with(username=None, password=None, query=None, fragment=None))


def retry_after_s(header: str | None, now: datetime) -> float:
    """How long a server asks to be left alone (RFC 9110, "Retry-After": seconds or a date); 0 where it does not say."""
    if not header:
        return 0
    if header.strip().isdigit():
        return float(header)
    try:
        then = parsedate_to_datetime(header)
    except ValueError:
        return 0
    then = then if then.tzinfo else then.replace(tzinfo=timezone.utc)
    return max(0.0, (then - now).total_seconds())
