"""How the next page is asked for, and how it is seen that a server goes in a circle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from microbatch.sources.rest.pages import Page


@dataclass(frozen=True)
class Ask:
    """What one page is asked for with: a URL, and parameters beside those it has."""

    url: str
    params: Mapping[str, str] = field(default_factory=dict)


class Paging(Protocol):
    """A way from one page to the next."""

    @property
    def shifts(self) -> bool:
        """Whether a list that grows while it is read moves records from one page to the next, so that they come twice."""

    def first(self, ask: Ask) -> Ask:
        """The first page."""

    def next(self, ask: Ask, page: Page, link: str | None, count: int, so_far: int) -> Ask | None:
        """The page after one, or None after the last.

        Args:
            ask: what the page was asked for with.
            link: where its `Link` header says the next one is.
            count, so_far: the records of the page, and of all pages with it.

        Raises:
            ValueError: what should name the next page is not a text or a number.
        """


@dataclass(frozen=True)
class OnePage:
    """There is one page."""

    shifts = False

    def first(self, ask: Ask) -> Ask:
        return ask

    def next(self, ask: Ask, page: Page, link: str | None, count: int, so_far: int) -> Ask | None:
        return None


@dataclass(frozen=True)
class ByLink:
    """The `Link` header names the next page (RFC 8288, rel=next), or the URL in a field of the page."""

    field: str | None = None
    shifts = False

    def first(self, ask: Ask) -> Ask:
        return ask

    def next(self, ask: Ask, page: Page, link: str | None, count: int, so_far: int) -> Ask | None:
        if self.field:
            link = _text(self.field, page.at(self.field))
        return Ask(link) if link else None  # a link holds its parameters already


@dataclass(frozen=True)
class ByCursor:
    """A field of the page goes back as a parameter; none, null or an empty one: this is the last page."""

    field: str
    param: str
    shifts = False

    def first(self, ask: Ask) -> Ask:
        return ask

    def next(self, ask: Ask, page: Page, link: str | None, count: int, so_far: int) -> Ask | None:
        cursor = _text(self.field, page.at(self.field))
        return Ask(ask.url, {**ask.params, self.param: cursor}) if cursor else None


@dataclass(frozen=True)
class ByOffset:
    """How many records are skipped is a parameter. Ends with an empty page: a server may give fewer than it was asked for."""

    param: str
    limit_param: str | None = None
    limit: int | None = None
    shifts = True

    def first(self, ask: Ask) -> Ask:
        limit = {self.limit_param: str(self.limit)} if self.limit_param else {}
        return Ask(ask.url, {**ask.params, **limit, self.param: "0"})

    def next(self, ask: Ask, page: Page, link: str | None, count: int, so_far: int) -> Ask | None:
        return Ask(ask.url, {**ask.params, self.param: str(so_far)}) if count else None


@dataclass(frozen=True)
class ByPage:
    """The page's number is a parameter. Ends with an empty page."""

    param: str
    number: int = 1
    shifts = True

    def first(self, ask: Ask) -> Ask:
        return Ask(ask.url, {**ask.params, self.param: str(self.number)})

    def next(self, ask: Ask, page: Page, link: str | None, count: int, so_far: int) -> Ask | None:
        return Ask(ask.url, {**ask.params, self.param: str(int(ask.params[self.param]) + 1)}) if count else None


def _text(field_: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return str(value) if value else None
    raise ValueError(f"{field_} does not name a page: it is not a text or a number")
