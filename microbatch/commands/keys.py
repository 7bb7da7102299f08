"""The key a row is looked for by: what was asked, as each table and each letter would have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timezone
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import TYPE_CHECKING, Any

from microbatch.errors import ConfigError, Problem

if TYPE_CHECKING:
    import pyarrow as pa


def parsed(keys: Sequence[str]) -> dict[str, str]:
    """Column -> value of each `COLUMN=VALUE`.

    Raises:
        ConfigError: one is not of that form.
    """
    wanted: dict[str, str] = {}
    for key in keys:
        name, equals, value = key.partition("=")
        if not equals or not name.strip():
            raise ConfigError(Problem("--key", f'"{key}" is not COLUMN=VALUE, such as order_id=41'))
        wanted[name.strip()] = value
    return wanted


class Names:
    """What a column is called elsewhere in a job: followed over what the transforms pass on or rename, where that is kept.

    Attributes:
        known: whether it is.
    """

    def __init__(self, lineage: Sequence[Mapping[str, Any]]) -> None:
        self.known = bool(lineage)
        self._near: dict[tuple[str, str], set[tuple[str, str]]] = {}
        for row in lineage:
            if row["how"] in ("as it is", "renamed"):
                made = (row["table"], row["column"])
                for each in row["inputs"]:
                    table, _, column = each.rpartition(".")
                    self._near.setdefault(made, set()).add((table, column))
                    self._near.setdefault((table, column), set()).add(made)

    def at(self, place: str, wanted: Mapping[str, str], there: Sequence[str] | None = None) -> dict[str, str]:
        """The values under the names that a source or a table has for their columns; the given name where it has none.

        Args:
            there: the columns that are known to be there.
        """
        return {self._one(place, name, there): value for name, value in wanted.items()}

    def _one(self, place: str, name: str, there: Sequence[str] | None) -> str:
        if there is not None and name in there:
            return name
        seen = {node for node in self._near if node[1] == name}
        ahead = list(seen)
        while ahead:
            new = self._near[ahead.pop()] - seen
            seen |= new
            ahead += new
        found = {column for table, column in seen if table == place}
        return found.pop() if len(found) == 1 else name


def same(found: Any, value: str) -> bool:
    """Whether a value of JSON is the one that was asked for: 41, 41.0 and "41" are one number."""
    if isinstance(found, bool):
        return str(found).lower() == value.lower()
    if str(found) == value:
        return True
    try:
        return Decimal(str(found)) == Decimal(value)
    except InvalidOperation:
        return False


def typed(name: str, value: str, kind: pa.DataType) -> Any:
    """The value as the column's type takes it, whole: nothing is rounded.

    Raises:
        ConfigError: it does not.
    """
    import pyarrow as pa

    try:
        made = _made(value, kind)
        pa.scalar(made, kind)  # which knows how far each type reaches
    except (ValueError, KeyError, TypeError, NotImplementedError, ArithmeticError) as cause:
        raise ConfigError(Problem("--key", f'"{value}" is no value of column {name}, which is {kind}')) from cause
    return made


def _made(value: str, kind: pa.DataType) -> Any:
    import pyarrow as pa

    if pa.types.is_nested(kind):
        raise TypeError("a list, struct or map is not looked for")
    if pa.types.is_integer(kind):
        return int(value)
    if pa.types.is_floating(kind):
        return float(value)
    if pa.types.is_decimal(kind):
        exact = Context(prec=kind.precision, traps=[InvalidOperation, Inexact])
        return Decimal(value).quantize(Decimal(1).scaleb(-kind.scale), context=exact)
    if pa.types.is_boolean(kind):
        return {"true": True, "false": False}[value.lower()]
    if pa.types.is_date(kind):
        return date.fromisoformat(value)
    if pa.types.is_timestamp(kind):
        at = datetime.fromisoformat(value.replace("Z", "+00:00"))
        utc = at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at.astimezone(timezone.utc)
        return utc if kind.tz else utc.replace(tzinfo=None)
    return value
