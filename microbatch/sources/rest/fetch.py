"""One fetch: page after page until the last, each record once, then the value to go on from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal
from hashlib import blake2b
from typing import Any

from microbatch.errors import ConfigError, Problem, StateChanged
from microbatch.sources.rest.client import Client, place
from microbatch.sources.rest.pages import NotThere, Record, inside
from microbatch.sources.rest.paging import Ask, OnePage, Paging
from microbatch.sources.rest.spool import DIGEST, Writing, digest

_PLAIN = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True)
class Asked:
    """What an API is asked for.

    Attributes:
        url: of the first page, absolute.
        params: with each page but one that a link leads to.
        records: dotted path to the list in a page; None: the page is the list.
        cursor_field, cursor_param: the value to go on from, in a record (dotted), and where it goes back; None: no cursor.
    """

    url: str = field(repr=False)
    params: Mapping[str, str] = field(default_factory=dict, repr=False)
    records: str | None = None
    paging: Paging = field(default_factory=OnePage)
    cursor_field: str | None = None
    cursor_param: str | None = None


class Fetch:
    """One fetch of what is new.

    Args:
        source, flow: their names, for messages.
        cursor: the value the last fetch ended with.
        answer: the records that the last answer held: they are in the spool already.
    """

    def __init__(self, source: str, flow: str, asked: Asked, cursor: str | None, answer: Counter[bytes]) -> None:
        self.source, self.flow, self.asked = source, flow, asked
        self.cursor, self._known = cursor, Counter(answer)
        self.answer: Counter[bytes] = Counter()

    def into(self, writing: Writing, client: Client) -> None:
        """Bring all there is into the spool, as one fetch that counts when its last page is there.

        Raises:
            SourceUnavailable: a page did not come.
            StateChanged: the server goes in a circle.
            ConfigError: it refuses, or its pages are not what conf says.
        """
        cursors, seen = [self.cursor], 0
        for page in self.pages(client):
            for record in self._new(page):
                writing.add(record.text)
            if self.asked.cursor_field:
                cursors += [found for record in page if (found := self._cursor_of(record)) is not None]
                cursors, seen = [self._greatest(cursors)], seen + len(page)
        if seen and cursors == [None]:
            raise self._wrong(f"cursor: none of {seen:,} records has a value in {self.asked.cursor_field}")
        writing.complete(self.answer, cursors[0])

    def pages(self, client: Client) -> Iterator[list[Record]]:
        """The records of each page, until the last."""
        paging, params = self.asked.paging, dict(self.asked.params)
        if self.asked.cursor_param and self.cursor is not None:
            params[self.asked.cursor_param] = self.cursor
        ask: Ask | None = paging.first(Ask(self.asked.url, params))
        asked: set[tuple[Any, ...]] = set()
        came: dict[bytes, int] = {}
        so_far = 0
        while ask is not None:
            asked.add(_key(ask))
            page, answer = client.page(ask.url, ask.params)
            try:
                records = page.records(self.asked.records)
                so_far += len(records)
                link = answer.links.get("next", {}).get("url")
                ask = paging.next(ask, page, link, len(records), so_far)
            except NotThere as cause:
                raise self._wrong(f"records: {cause}; see `records` in conf") from cause
            except ValueError as cause:
                raise self._wrong(f"paginate: {cause}") from cause
            number = len(came) + 1
            same = came.setdefault(_of_page(records), number) if records else number
            if same != number:
                raise self._circle(f"page {number} is page {same} again, to the character ({place(answer.url)})")
            ask = Ask(str(answer.url.join(ask.url)), ask.params) if ask else None
            if ask and _key(ask) in asked:
                raise self._circle(f"page {number} leads back to a page that was read ({place(answer.url)})")
            yield records

    def _new(self, page: list[Record]) -> Iterator[Record]:
        """The records of a page that are not in the spool, and not on an earlier page where pages shift."""
        here: Counter[bytes] = Counter()
        for record in page:
            held = digest(record.text)
            here[held] += 1
            at = here[held] if self.asked.paging.shifts else self.answer[held] + 1
            if at > self.answer[held]:
                self.answer[held] = at
            if at > self._known[held]:
                self._known[held] = at
                yield record

    def _cursor_of(self, record: Record) -> str | None:
        assert self.asked.cursor_field is not None
        value = inside(record.value, self.asked.cursor_field.split("."))
        if value is None or isinstance(value, str):
            return value or None
        raise self._wrong(f"cursor: {self.asked.cursor_field} is neither a text nor a number")

    def _greatest(self, values: list[str | None]) -> str | None:
        """The value that comes last: numbers as numbers, times as times, all else by its letters."""
        there = [value for value in values if value is not None]
        for rank in (_number, _time):
            ranks = [rank(value) for value in there]
            if all(each is not None for each in ranks):
                return max(zip(ranks, there, strict=True), default=(None, None))[1]
        return max(there)

    def _circle(self, what: str) -> StateChanged:
        remedy = "see `paginate` in conf: does the server know these parameters? Nothing of this fetch was taken in"
        return StateChanged(self.flow, f"source {self.source} goes in a circle: {what}", remedy)

    def _wrong(self, what: str) -> ConfigError:
        return ConfigError(Problem(f"source {self.source}", what))


def _key(ask: Ask) -> tuple[Any, ...]:
    return (ask.url, *sorted(ask.params.items()))


def _of_page(records: list[Record]) -> bytes:
    whole = blake2b(digest_size=DIGEST)
    for record in records:
        whole.update(digest(record.text))
    return whole.digest()


def _number(value: str) -> Decimal | None:
    """A number, also one in quotes: ids are often written so."""
    return Decimal(value) if _PLAIN.fullmatch(value) else None


def _time(value: str) -> datetime | None:
    """A time of ISO 8601; without a zone in UTC."""
    try:
        time = datetime.fromisoformat(f"{value[:-1]}+00:00" if value.endswith(("Z", "z")) else value)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)
