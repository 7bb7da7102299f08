"""The SQL rule: what `SELECT * FROM {batch} WHERE <predicate>` says about one row.

Only this one shape can be judged row by row. It is read by a small scanner that knows quotes and comments, not by
searching the text: a WHERE or a semicolon inside a string is no keyword.
"""

from __future__ import annotations

import re

from microbatch.checks.catalogue import SQL_SHAPE

_TABLE = "the_micro_batch"
# Spark's lexer: strings in either quote with backslash escapes, doubled quotes, backquoted names, comments.
_PIECES = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`(?:[^`]|``)*`)"""
    r"""|(?P<line>--[^\n]*)|(?P<open>/\*)|(?P<broken>['"`])""",
    re.DOTALL,
)
_SHAPE = re.compile(rf"\s*SELECT\s+\*\s+FROM\s+{_TABLE}\s+WHERE\b(?P<predicate>.+)", re.DOTALL | re.IGNORECASE)
_FORBIDDEN = {
    "a set operation": r"\b(UNION|INTERSECT|EXCEPT|MINUS)\s+(ALL\s+|DISTINCT\s+)?\(?\s*SELECT\b",
    "a subquery": r"\bSELECT\b",
    "GROUP BY": r"\bGROUP\s+BY\b",
    "HAVING": r"\bHAVING\b",
    "ORDER BY": r"\b(ORDER|SORT|CLUSTER|DISTRIBUTE)\s+BY\b",
    "LIMIT": r"\b(LIMIT|OFFSET)\s+(\d|ALL\b)",
    "a window": r"\bOVER\s*\(",
}


def predicate_of(query: str) -> str:
    """The predicate of the rule, without comments; a row for which it is true is bad, null is not true.

    Args:
        query: as in the suite. Braces are doubled there (`{{3}}`), because Great Expectations formats the text.

    Raises:
        ValueError: the query has another shape; the message says what to write.
    """
    try:
        formatted = query.format(batch=_TABLE)
    except (KeyError, IndexError, ValueError, AttributeError) as cause:
        raise ValueError(
            f"unexpected_rows_query has a brace that is not {{batch}} ({cause}); double it: {{{{ and }}}}"
        ) from cause
    bare = _without_comments(formatted).rstrip("; \t\r\n\v\f")
    outside = _PIECES.sub(lambda piece: " " * len(piece.group()), bare)
    if ";" in outside:
        raise ValueError(f"unexpected_rows_query holds more than one statement; write {SQL_SHAPE}")
    match = _SHAPE.fullmatch(bare)
    if match is None:
        raise ValueError(f"unexpected_rows_query must be one condition over each row: write {SQL_SHAPE}")
    start = match.start("predicate")
    for what, pattern in _FORBIDDEN.items():
        if re.search(pattern, outside[start:], re.IGNORECASE):
            raise ValueError(
                f"unexpected_rows_query holds {what}, which needs more than the row itself; write {SQL_SHAPE}"
            )
    if _TABLE in outside[start:]:
        raise ValueError("unexpected_rows_query names {batch} inside its condition; write the column alone")
    return match["predicate"].strip()


def _without_comments(sql: str) -> str:
    """Each comment as one space. Bracketed comments nest, as in Spark."""
    kept, at = [], 0
    while piece := _PIECES.search(sql, at):
        kept.append(sql[at : piece.start()])
        at = piece.end()
        if piece["text"]:
            kept.append(piece["text"])
        elif piece["broken"]:
            raise ValueError(f"unexpected_rows_query has a quote that is not closed: {piece['broken']}")
        elif piece["open"]:
            at = _end_of_comment(sql, at)
            kept.append(" ")
        else:
            kept.append(" ")
    return "".join([*kept, sql[at:]])


def _end_of_comment(sql: str, at: int) -> int:
    depth = 1
    for mark in re.finditer(r"/\*|\*/", sql[at:]):
        depth += 1 if mark.group() == "/*" else -1
        if depth == 0:
            return at + mark.end()
    raise ValueError("unexpected_rows_query has a comment that is not closed; end it with */")
