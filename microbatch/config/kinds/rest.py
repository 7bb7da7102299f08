"""What conf may say of an HTTP API that gives JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from microbatch.config.connection import Auth
from microbatch.config.kinds.source import SourceConf, at_key
from microbatch.config.values import Amount, Count, CountOrZero, Strict, Text

if TYPE_CHECKING:
    from microbatch.config.connection import Connection
    from microbatch.sources.rest.paging import Paging

ESCAPED = "; in a user or password write / as %2F, @ as %40, : as %3A, # as %23 and ? as %3F"
# Which keys each way of paging has: those it needs, and those it may have.
_PAGING: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "link": ((), ("field",)),
    "cursor": (("field", "param"), ()),
    "offset": (("param",), ("limit_param", "limit")),
    "page": (("param",), ("first",)),
}


class Paginate(Strict):
    """How the next page is asked for.

    Attributes:
        by: link (the `Link` header, or the URL in `field` of the page), cursor (the value in `field` goes back as `param`),
            offset (records so far as `param`) or page (1, 2, 3 as `param`); the last two end with a page without records.
    """

    by: Literal["link", "cursor", "offset", "page"]
    field: Text | None = None
    param: Text | None = None
    limit_param: Text | None = None
    limit: Count | None = None
    first: CountOrZero | None = None

    @model_validator(mode="after")
    def _has_its_keys(self) -> Paginate:
        needed, more = _PAGING[self.by]
        for name in ("field", "param", "limit_param", "limit", "first"):
            given = getattr(self, name) is not None
            if given and name not in (*needed, *more):
                raise at_key(name, f"does not go with by: {self.by}, which has {', '.join((*needed, *more))}")
            if not given and name in needed:
                raise at_key(name, f"is needed with by: {self.by}")
        if (self.limit is None) != (self.limit_param is None):
            raise at_key("limit", "goes with limit_param: write both or none")
        return self


class CursorConf(Strict):
    """What is new since the last run: the greatest `field` of the records so far goes back, as it came, as `param`."""

    field: Text
    param: Text


class RestConf(SourceConf):
    """An HTTP API whose pages hold records as JSON.

    Attributes:
        connection, url: where the server is: the one or the other.
        records: dotted path to the list of records in a page; None: the page is the list.
        paginate: None: one page is all there is.
        cursor: None: every run reads all, and takes in what was not in the last answer.
        headers, auth: beside those of the connection; where both say the same, these count.
        rate_per_s: requests a second, at most.
        timeout_s: to connect, and between two bytes of an answer.
    """

    look_s: ClassVar[float] = 30.0  # each look is a request

    kind: Literal["rest"]
    connection: Text | None = None
    url: Text | None = Field(None, repr=False)
    path: str = ""
    params: dict[str, str | int | bool] = Field(default_factory=dict, repr=False)
    records: Text | None = None
    paginate: Paginate | None = None
    cursor: CursorConf | None = None
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    auth: Auth | None = Field(None, repr=False)
    rate_per_s: Amount | None = None
    timeout_s: Amount = 30

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if not is_http(value):
            raise ValueError(f"must begin with http:// or https:// and name a host{ESCAPED}")
        return value

    @model_validator(mode="after")
    def _is_somewhere(self) -> RestConf:
        if (self.connection is None) == (self.url is None):
            raise at_key("connection", "or url is needed: one of the two")
        if urlsplit(self.path).scheme or self.path.startswith("//"):
            raise at_key("path", "is the part behind the server; the server is said by connection or url")
        return self

    def place(self, root: Path) -> str:
        if self.connection:
            return f"JSON over HTTP from {self.connection}, /{self.path.lstrip('/')}"
        told = urlsplit(self.url or "")
        return f"JSON over HTTP from {told.hostname}, {told.path.rstrip('/')}/{self.path.lstrip('/')}"

    def identity(self) -> dict[str, Any]:
        cursor = f"{self.cursor.field} as {self.cursor.param}" if self.cursor else None
        # Not the values of params, nor the server: the one may hold a key, which changes and must not lie on a disk.
        return {"path": self.path, "params": sorted(self.params), "records": self.records, "cursor": cursor}

    def paging(self) -> Paging:
        """The way from one page to the next."""
        from microbatch.sources.rest.paging import ByCursor, ByLink, ByOffset, ByPage, OnePage

        how = self.paginate
        if how is None:
            return OnePage()
        if how.by == "link":
            return ByLink(how.field)
        if how.by == "cursor":
            return ByCursor(how.field or "", how.param or "")
        if how.by == "offset":
            return ByOffset(how.param or "", how.limit_param, how.limit)
        return ByPage(how.param or "", 1 if how.first is None else how.first)

    def lacks(self, connection: Connection | None) -> str | None:
        if connection is None or connection.url is None:
            return f"connection {self.connection} has no url; a rest source needs one"
        if is_http(connection.url):
            return None
        return f"the url of connection {self.connection} is no http:// or https:// with a host{ESCAPED}"

    def _places(self) -> tuple[str, ...]:
        return ("_fetched_at TIMESTAMP",) if self.metadata else ()


def is_http(url: str) -> bool:
    """Whether it is a URL of a server that speaks HTTP, of which every part can be told."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # a / in a password ends the host there, and what is behind the : would be shown as a bad port
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False
