"""What can go wrong, and what happens next.

The base class says what happens next (stop, edit a file, try later) and carries the exit code; the name and the fields say
what went wrong. An error is one line: what, where, what to do. Errors keep their arguments, not a message, because some of
them are raised on an executor and must survive pickling.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any


class MicrobatchError(Exception):
    """Stop; the checkpoint stays where it is, so nothing is lost.

    Attributes:
        of_the_batch: whether the batch under way is at fault, so that a letter says which it was.
    """

    exit_code = 1
    of_the_batch = False


@dataclass(frozen=True)
class Problem:
    """One mistake in a file that somebody wrote.

    Attributes:
        where: the file relative to the suite, with `:line` or ` key` where it is known.
        what: what is wrong, and what to do, in one sentence without a full stop at the end.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class ConfigError(MicrobatchError):
    """Someone must edit a file. Never retried. Holds every mistake that was found, not only the first."""

    exit_code = 2

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(dict.fromkeys(str(problem) for problem in self.problems))


class TransientError(MicrobatchError):
    """The same call may work later. Retried with back-off, then left to the scheduler.

    Attributes:
        wait_s: how long the other side asked to be left alone.
    """

    exit_code = 5
    of_the_batch = True
    wait_s: float = 0


class SourceUnavailable(TransientError):
    """A source did not answer, or its folder is not there."""

    def __init__(self, source: str, cause: str) -> None:
        super().__init__(source, cause)
        self.source, self.cause = source, cause

    def __str__(self) -> str:
        return f"source {self.source} is not available: {self.cause}"


class SnapshotUnavailable(TransientError):
    """A dimension is missing, too small or too old: joining it would give a green run with empty columns."""

    def __init__(self, flow: str, table: str, cause: str) -> None:
        super().__init__(flow, table, cause)
        self.flow, self.table, self.cause = flow, table, cause

    def __str__(self) -> str:
        return f"flow {self.flow} needs a snapshot of {self.table}: {self.cause}"


class WarehouseUnavailable(TransientError):
    """The warehouse or the checkpoints cannot be read or written now: no space, no rights, no connection."""

    def __init__(self, what: str, cause: str) -> None:
        super().__init__(what, cause)
        self.what, self.cause = what, cause

    def __str__(self) -> str:
        return f"{self.what}: {self.cause}"


class JobHeld(MicrobatchError):
    """Another run holds the job."""

    exit_code = 4

    def __init__(self, job: str, holder: str) -> None:
        super().__init__(job, holder)
        self.job, self.holder = job, holder

    def __str__(self) -> str:
        return f"job {self.job} is held by another run: {self.holder}; wait for it to end, or stop it"


class ExpectationStopped(MicrobatchError):
    """A critical expectation stopped a flow before anything of the batch was written."""

    exit_code = 3

    def __init__(self, flow: str, batch_id: int, failures: tuple[str, ...]) -> None:
        super().__init__(flow, batch_id, failures)
        self.flow, self.batch_id, self.failures = flow, batch_id, failures

    def __str__(self) -> str:
        return (
            f"flow {self.flow} stopped at batch {self.batch_id}, nothing was written: {'; '.join(self.failures)}; "
            "mend the data or the expectation and run again, the batch is still pending"
        )


class StateChanged(MicrobatchError):
    """A checkpoint, table or file is not as the engine left it: going on would lose or double rows."""

    def __init__(self, flow: str, what: str, remedy: str) -> None:
        super().__init__(flow, what, remedy)
        self.flow, self.what, self.remedy = flow, what, remedy

    def __str__(self) -> str:
        return f"flow {self.flow}: {self.what}; {self.remedy}"


class TransformBroken(MicrobatchError):
    """A transform raised, or changed the number of rows. Never retried: the same input would do the same."""

    of_the_batch = True

    def __init__(self, flow: str, batch_id: int, transform: str, what: str) -> None:
        super().__init__(flow, batch_id, transform, what)
        self.flow, self.batch_id, self.transform, self.what = flow, batch_id, transform, what

    def __str__(self) -> str:
        return (
            f"flow {self.flow} stopped at batch {self.batch_id}, nothing was written: {self.what} "
            f"(transform {self.transform}); mend it and run again, the batch is still pending"
        )


class RuleBroken(MicrobatchError):
    """An expectation or a `delete_when` raised over a row. Never retried: the same input would do the same."""

    of_the_batch = True

    def __init__(self, flow: str, batch_id: int, rules: str, what: str) -> None:
        super().__init__(flow, batch_id, rules, what)
        self.flow, self.batch_id, self.rules, self.what = flow, batch_id, rules, what

    def __str__(self) -> str:
        return (
            f"flow {self.flow} stopped at batch {self.batch_id}, nothing was written: {self.what} "
            f"(in {self.rules}); a rule must hold for any row, such as by try_divide or nullif; mend it and run again, "
            "the batch is still pending"
        )


class BatchFailed(MicrobatchError):
    """A batch failed for a reason the engine does not know. Unknown means stop: the checkpoint holds."""

    of_the_batch = True

    def __init__(self, flow: str, batch_id: int | None, cause: str) -> None:
        super().__init__(flow, batch_id, cause)
        self.flow, self.batch_id, self.cause = flow, batch_id, cause

    def __str__(self) -> str:
        where = "before a batch" if self.batch_id is None else f"at batch {self.batch_id}"
        return f"flow {self.flow} stopped {where}: {self.cause}; run again with --debug to see where"


_CARRIED = re.compile(r"<microbatch ([A-Za-z0-9+/=]+)>")


def carried(error: MicrobatchError) -> str:
    """An error as a word that survives Spark, which hands down the text of what a worker raised and nothing else.

    The word hides a secret from whoever looks for it by value: the error must hold none.
    """
    record = [type(error).__name__, [_plain(each) for each in error.args]]
    return f"<microbatch {base64.b64encode(json.dumps(record).encode()).decode()}>"


def uncarried(text: str) -> MicrobatchError | None:
    """The error that a text carries, as it was raised; None where it carries none."""
    found = _CARRIED.search(text)
    if found is None:
        return None
    try:
        name, arguments = json.loads(base64.b64decode(found[1]))
    except (binascii.Error, ValueError):
        return None
    kinds, waiting = {}, [MicrobatchError]
    while waiting:
        kind = waiting.pop()
        kinds[kind.__name__] = kind
        waiting += kind.__subclasses__()
    return kinds[name](*[_of_plain(each) for each in arguments]) if name in kinds else None


def _plain(argument: object) -> Any:
    if isinstance(argument, Problem):
        return {"where": argument.where, "what": argument.what}
    return list(argument) if isinstance(argument, tuple) else argument


def _of_plain(argument: Any) -> Any:
    if isinstance(argument, dict):
        return Problem(**argument)
    return tuple(argument) if isinstance(argument, list) else argument


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text with every secret taken out by value, whoever wrote the text.

    A secret is found as it is, as it stands in a URL (percent-encoded once or twice, in whole or in part), as it stands
    in a quoted text (`repr`, JSON), and with other blanks where it has some: whoever makes one line of a text changes them.
    """
    for secret in sorted(secrets, key=len, reverse=True):
        text = _written(secret).sub("***", text)
    return text


def shortened(text: str, most: int) -> str:
    """The text, cut between two words where it is longer than `most` characters.

    A cut inside a word would leave a part of a secret, which nobody who looks for the secret finds again.
    """
    return text if len(text) <= most else f"{text[:most].rpartition(' ')[0]} …"


@lru_cache(maxsize=256)
def _written(secret: str) -> re.Pattern[str]:
    """What matches the secret however each of its characters is written."""
    parts = [part for part in re.split(r"(\s+)", secret) if part]
    return re.compile("".join(rf"(?:\s+|{_exactly(part)})" if part.isspace() else _exactly(part) for part in parts))


def _exactly(text: str) -> str:
    return "".join(f"(?:{'|'.join(_ways(character))})" for character in text)


def _ways(character: str) -> list[str]:
    in_a_url = "".join(f"%(?:25)?(?i:{byte:02x})" for byte in character.encode(errors="surrogatepass"))
    ways = [rf"\\*{re.escape(character)}", in_a_url]
    if character == " ":
        ways.append(r"\+")
    elif not character.isprintable() or ord(character) > 126:
        ways.append(r"\\+" + re.escape(character.encode("unicode_escape").decode().lstrip("\\")))
        ways.append(r"\\+" + f"u(?i:{ord(character):04x})")
    return ways
