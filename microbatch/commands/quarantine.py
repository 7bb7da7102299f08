"""`microbatch quarantine list` and `show`: the dead letters, counted and read. No JVM.

`--where` is SQL (Apache DataFusion's, which deltalake brings) over the columns of `ops.quarantine`; a field of the first
reason is `reasons[1]['column']`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from microbatch.commands.render import columns
from microbatch.config import LoadedJob, Suite
from microbatch.errors import ConfigError, Problem
from microbatch.sink import ops
from microbatch.sink.tables import Table

SHOWN_ID = 12  # letters of an id that are shown; `show` takes any beginning that is one letter's alone
WIDEST_REASON = 110
_MARK = "\0"  # around a number while it is laid out: no JSON text holds it as it is
_ADDRESS = ("flow", "kind", "status")
_OF_REASON = ("expectation", "column", "severity")
MOST_SHOWN = 20  # letters that `show` prints where no id is given


@dataclass(frozen=True)
class Letters:
    """Which letters of a job: of a flow, of a batch, those an SQL condition is true for; all of which must hold."""

    suite: Suite
    job: LoadedJob
    flow: str | None = None
    batch: int | None = None
    where: str | None = None

    def condition(self) -> str:
        """The SQL that chooses them.

        Raises:
            ConfigError: the job has no such flow.
        """
        parts = [f"job = '{self.job.name}'"]
        if self.flow is not None:
            parts.append(f"flow = '{self.job.flow(self.flow).name}'")
        if self.batch is not None:
            parts.append(f"batch_id = {int(self.batch)}")
        if self.where is not None:
            parts.append(f"(\n{self.where}\n)")  # on lines of its own, so that a comment in it ends there
        return " AND ".join(parts)

    def query(self, select: str, rest: str = "", *, only: str = "", around: str = "{}") -> list[dict[str, Any]]:
        """Rows of `SELECT <select> FROM letters WHERE … <rest>`; none where there is no quarantine yet.

        Args:
            only: one more condition, of the engine's own.
            around: a query around that one, which stands for `{}`.

        Raises:
            ConfigError: `where` is not SQL over the columns of a letter.
        """
        condition = f"{self.condition()}{f' AND {only}' if only else ''}"
        stored = Table(self.suite.environment.storage["warehouse"], "ops.quarantine")
        if not stored.exists():
            return []
        from deltalake import QueryBuilder

        engine = QueryBuilder().register("letters", stored.open())
        before, after = around.split("{}")
        try:
            if (
                self.where is not None
            ):  # by itself too: `true) OR (true` is one condition only with our brackets round it
                engine.execute(f"SELECT 1 FROM letters WHERE\n{self.where}\nLIMIT 0").read_all()  # noqa: S608
            found = engine.execute(f"{before}SELECT {select} FROM letters WHERE {condition} {rest}{after}").read_all()  # noqa: S608
        except Exception as cause:  # DataFusion's errors have no class of their own
            if self.where is None:
                raise
            raise ConfigError(Problem("--where", _refusal(cause))) from cause
        return ops.dicts(found)


def list_(letters: Letters, limit: int = 50) -> int:
    """Print how many letters there are for each reason, then the newest, a line each."""
    counted = letters.query("count(*) AS letters")
    total = counted[0]["letters"] if counted else 0
    if not total:
        print(f"{letters.job.name}: {_none(letters)}")
        return 0
    print(columns(("letters", "flow", "kind", "status", "rule", "column", "severity"), _counts(letters)))
    print()
    newest = letters.query(
        "id, flow, batch_id, kind, status, quarantined_at, reasons",
        f"ORDER BY quarantined_at DESC, id LIMIT {max(0, limit)}",
    )
    head = ("id", "flow", "batch", "kind", "status", "when (UTC)", "reasons")
    if newest:
        print(columns(head, [_line(letter) for letter in newest]))
    more = (
        f"the newest {len(newest):,} of {total:,} letters; --limit shows more"
        if len(newest) < total
        else f"{total:,} in all"
    )
    print(f"{more}; a whole one: microbatch quarantine show {letters.job.name} ID")
    return 0


def show(letters: Letters, ids: Sequence[str] = ()) -> int:
    """Print whole letters: those whose id begins so, or the newest of those that were chosen.

    Raises:
        ConfigError: an id is no letter's, or several begin so.
    """
    wanted, problems = [], []
    for id_ in ids:
        if not id_.isalnum():
            problems.append(Problem("quarantine", f"{id_!r} is not the id of a letter: an id is letters and digits"))
            continue
        found = letters.query("*", "ORDER BY id LIMIT 2", only=f"starts_with(id, '{id_.lower()}')")
        if len(found) == 1:
            wanted += found
        else:
            list_them = f"`microbatch quarantine list {letters.job.name}` lists them"
            what = (
                f"several letters begin with {id_}; give more of the id"
                if found
                else f"no letter begins with {id_}; {list_them}"
            )
            problems.append(Problem("quarantine", what))
    if problems:
        raise ConfigError(*problems)
    if not ids:
        wanted = letters.query("*", f"ORDER BY quarantined_at DESC, id LIMIT {MOST_SHOWN}")
    print("\n\n".join(whole(letter) for letter in wanted) if wanted else f"{letters.job.name}: {_none(letters)}")
    return 0


def whole(letter: dict[str, Any]) -> str:
    """One letter as text: its address, every reason, its payload (JSON laid out, anything else as it is)."""
    head = [
        f"letter    {letter['id']}",
        f"from      {letter['job']}.{letter['flow']}, batch {letter['batch_id']}, run {letter['run_id']}",
        f"when      {letter['quarantined_at']:%Y-%m-%d %H:%M:%S} UTC",
        f"kind      {letter['kind']}",
        f"status    {letter['status']}, {letter['attempts']} attempt{'' if letter['attempts'] == 1 else 's'}",
    ]
    reasons = [f"reason    {r['severity']}: {r['message']}  ({r['expectation']})" for r in letter["reasons"] or ()]
    return "\n".join([*head, *reasons, "payload", *[f"  {line}" for line in laid_out(letter["payload"]).splitlines()]])


def laid_out(payload: str | None) -> str:
    """A payload for people: JSON with a field a line, each number with the digits it came with; other text as it is."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a key is there twice: laying it out would drop one")
        return dict(pairs)

    def as_written(number: str) -> str:
        return f"{_MARK}{number}{_MARK}"

    try:
        data = json.loads(payload or "", parse_float=as_written, object_pairs_hook=once)
    except ValueError:
        return payload or ""
    if not isinstance(data, dict | list):
        return payload or ""
    return re.sub(r'"\\u0000(.*?)\\u0000"', r"\1", json.dumps(data, indent=2, ensure_ascii=False))


def _counts(letters: Letters) -> list[list[object]]:
    """How many letters gave each reason; one letter with two reasons counts in both lines."""
    group = [*_ADDRESS, *[f"reason['{name}']" for name in _OF_REASON]]
    named = [f"{what} AS g{number}" for number, what in enumerate(group)]
    around = f"SELECT {', '.join(named)}, count(*) AS n FROM ({{}}) GROUP BY {', '.join(group)} ORDER BY n DESC, g0, g1"  # noqa: S608
    counted = letters.query(f"{', '.join(_ADDRESS)}, unnest(reasons) AS reason", around=around)
    return [[each["n"], *[each[f"g{number}"] for number in range(len(group))]] for each in counted]


def _line(letter: dict[str, Any]) -> list[object]:
    reasons = "; ".join(r["message"] or r["expectation"] for r in letter["reasons"] or ())
    short = " ".join(reasons.split())
    cut = short if len(short) <= WIDEST_REASON else f"{short[: WIDEST_REASON - 1]}…"
    when = f"{letter['quarantined_at']:%Y-%m-%d %H:%M}"
    return [letter["id"][:SHOWN_ID], letter["flow"], letter["batch_id"], letter["kind"], letter["status"], when, cut]


def _none(letters: Letters) -> str:
    chosen = letters.flow is not None or letters.batch is not None or letters.where is not None
    return "no letter is like that" if chosen else "nothing is in quarantine"


def _refusal(cause: Exception) -> str:
    """What DataFusion says of a condition, on one line."""
    said = " ".join(str(cause).split())
    valid = said.find(" Valid fields are ")
    said = said if valid < 0 else said[:valid]
    said = said.replace("letters.", "").removeprefix("External error: ").removeprefix("Schema error: ")
    return f"{said.rstrip('.')}; it is SQL over {', '.join(ops.TABLES['quarantine'])}"
