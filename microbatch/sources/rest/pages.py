"""A page of JSON as its records, each the exact text it came as: a number that went through a float is another number."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]  # the parser's own: typeshed leaves it out
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")


class NotThere(ValueError):
    """A page does not have what a dotted path names; the text says what it has."""


class Number(str):
    """A number as it was written."""


_DECODER = json.JSONDecoder(parse_float=Number, parse_int=Number, parse_constant=Number)


@dataclass(frozen=True)
class Record:
    """One record of a page.

    Attributes:
        text: as it came, in one line: line breaks between its parts are blanks.
        value: what it says; numbers are `Number`s.
    """

    text: str
    value: Any


@dataclass(frozen=True)
class Page:
    """A page that was understood."""

    text: str
    document: Any

    @staticmethod
    def of(body: bytes) -> Page:
        """The page that a body is; an empty one (204 No Content) has no records, wherever they would be.

        Bytes that are no text stay what they are, for the one record that holds them to be told apart.

        Raises:
            ValueError: it is not JSON, or not all of it.
        """
        text = body.decode(json.detect_encoding(body), errors="surrogateescape").removeprefix("\ufeff")
        if not text.strip(" \t\r\n"):
            return Page("", None)
        try:
            return Page(text, _DECODER.decode(text))
        except RecursionError as cause:
            raise ValueError("it is nested too deep") from cause

    def at(self, path: str) -> Any:
        """What stands under a dotted path; None where nothing does."""
        return inside(self.document, path.split("."))

    def records(self, path: str | None) -> list[Record]:
        """The elements of the list under a dotted path, or of the page itself; null is an empty list.

        Raises:
            NotThere: there is no list.
        """
        if not self.text:
            return []
        names = path.split(".") if path else []
        at, document = _SPACE.match(self.text, 0).end(), self.document  # type: ignore[union-attr]  # it always matches
        for depth, name in enumerate(names):
            if not isinstance(document, dict) or name not in document:
                there = f"has {', '.join(document) or 'nothing'}" if isinstance(document, dict) else _kind(document)
                raise NotThere(f"{'.'.join(names[:depth]) or 'the page'} {there}, and no {name}")
            at, document = dict(_members(self.text, at))[name], document[name]
        if document is None:
            return []
        if not isinstance(document, list):
            raise NotThere(f"{path or 'the page'} {_kind(document)}, not a list")
        return list(_elements(self.text, at))


def inside(value: Any, path: Sequence[str]) -> Any:
    """What stands under these names, one in the other; None where nothing does."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _members(text: str, at: int) -> Iterator[tuple[str, int]]:
    """Each name of the object that begins at a place, and where its value begins."""
    at = _blank(text, at + 1)
    while text[at] != "}":
        name, at = scanstring(text, at + 1, True)
        at = _blank(text, _blank(text, at) + 1)
        yield name, at
        at = _blank(text, _DECODER.raw_decode(text, at)[1])
        at = _blank(text, at + 1) if text[at] == "," else at


def _elements(text: str, at: int) -> Iterator[Record]:
    """The elements of the list that begins at a place."""
    at = _blank(text, at + 1)
    while text[at] != "]":
        value, end = _DECODER.raw_decode(text, at)
        # A string of JSON holds no line break as it is: where one stands, it stands between two parts.
        yield Record(text[at:end].replace("\r", " ").replace("\n", " "), value)
        at = _blank(text, end)
        at = _blank(text, at + 1) if text[at] == "," else at


def _blank(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it always matches


def _kind(value: Any) -> str:
    kinds = {Number: "is a number", str: "is a text", bool: "is true or false", list: "is a list", dict: "is an object"}
    return kinds.get(type(value), "is null")
