"""What is good data: a Great Expectations suite, held against each micro-batch inside the pass that writes it.

`read` needs neither Spark nor Great Expectations and is quick. `plan` translates a suite once a run: the library's own
conditions and aggregates become Columns, which ride in the pass that writes; its own validation makes the results from
the counted numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from microbatch.checks import library
from microbatch.checks.suite import Entry, ExpectationFile, read

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from microbatch.checks.judging import Plan

__all__ = ["Entry", "ExpectationFile", "needed", "plan", "read", "warm"]

_WARMING = threading.Lock()


def needed(file: ExpectationFile | None, not_null: Sequence[str]) -> bool:
    """Whether there is anything to check; where there is not, Great Expectations stays away, and its 1 to 2 s."""
    return bool(not_null or (file and file.entries))


def warm() -> None:
    """Import what `plan` needs, 1 to 2 s: for a thread that runs while the JVM starts.

    One thread at a time: two that import the library's modules, which import each other, end in Python's _DeadlockError.
    """
    with _WARMING:
        library.load()
        import microbatch.checks.planning  # noqa: F401


def plan(
    file: ExpectationFile | None,
    empty: DataFrame,
    *,
    not_null: Sequence[str] = (),
    only_keys_when: str | None = None,
    mask: Sequence[str] = (),
) -> Plan:
    """Translate a suite for the columns of a flow. Runs one tiny Spark job, none where there is nothing to check.

    Args:
        file: the suite; None: only the keys are held.
        empty: a frame without rows that has the columns of the transformed rows.
        not_null: the target's keys; each is a critical not-null, whether the suite says so or not.
        only_keys_when: SQL; a row it is true for deletes its key, and is judged by rules on keys alone.
        mask: columns whose values no message may show.

    Returns:
        A `Plan` for every batch of the run; its Columns belong to no session and no frame.

    Raises:
        ConfigError: with every expectation that cannot be held against these columns, and why.
    """
    if not needed(file, not_null):
        from microbatch.checks.judging import Plan

        return Plan(None, ())
    library.load()
    from microbatch.checks.planning import build

    return build(file, empty, not_null, only_keys_when, mask)
