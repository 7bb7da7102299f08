"""What a part of a JSON line says, as it was written: Spark's parser gives a number as text only after it was floating point.

The line is known to be JSON. What is not found here is null: it is nested deeper than `DEEPEST`, its name is written with
escapes, or options allow what JSON does not.
"""

from __future__ import annotations

import json
import re

from pyspark.sql import Column
from pyspark.sql import functions as F

DEEPEST = 30  # Java's expressions know no recursion: each level is written out
# Nothing that was read is read again another way (`+` behind a quantifier): no line costs more than its length, or the stack.
_TEXT = r"""(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"|'[^'\\]*+(?:\\.[^'\\]*+)*+')"""


def _value() -> str:
    inner = r"[^\s\[\]{},:\"']++"
    value = inner
    for _ in range(DEEPEST):
        value = rf"[\[{{](?:[^\[\]{{}}\"']++|{_TEXT}|{value})*+[\]}}]"
    return rf"(?:{_TEXT}|{inner}|{value})"


_VALUE = _value()


def member(object_: Column, name: str) -> Column:
    """What an object says under a name."""
    named = f"[\"']{re.escape(json.dumps(name, ensure_ascii=False)[1:-1])}[\"']\\s*+:"
    before = rf"(?:\s*+(?!{named}){_TEXT}\s*+:\s*+{_VALUE}\s*+,)*+"
    found = F.regexp_extract(object_, rf"(?s)^\s*+\{{{before}\s*+{named}\s*+({_VALUE})", 1)
    return F.nullif(found, F.lit(""))


def elements(list_: Column) -> Column:
    """What a list says, each of its elements."""
    return F.regexp_extract_all(_inside(list_), F.lit(f"(?s){_VALUE}"), F.lit(0))


def members(object_: Column) -> Column:
    """What an object says, each of its values."""
    return F.regexp_extract_all(_inside(object_), F.lit(rf"(?s){_TEXT}\s*+:\s*+({_VALUE})"), F.lit(1))


def _inside(text: Column) -> Column:
    return F.substr(text, F.lit(2))
