"""What is transient, and how long to wait: the one place that sleeps.

Only what may pass by itself is tried again: network, locks, concurrent commits, no space. Unknown means stop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from microbatch.errors import (
    BatchFailed,
    JobHeld,
    MicrobatchError,
    StateChanged,
    TransientError,
    WarehouseUnavailable,
    shortened,
    uncarried,
)

Result = TypeVar("Result")
LONGEST_S = 300.0  # the longest that what does not answer is left alone by a run that goes on, unless it asks for more

HELD = (
    "DELTA_CONCURRENT_TRANSACTION",
    "Failed to commit transaction: Concurrent transaction failed",  # so says delta-rs
    "CONCURRENT_STREAM_LOG_UPDATE",
    "Multiple streaming queries are concurrently using",
    "Concurrent update to the log",
)
CHANGED = (
    "DELTA_SOURCE_TABLE_IGNORE_CHANGES",
    "DELTA_SOURCE_IGNORE_DELETE",
    "DIFFERENT_DELTA_TABLE_READ_BY_STREAMING_SOURCE",
    "DELTA_CHANGE_DATA_FILE_NOT_FOUND",
    "DELTA_FILE_NOT_FOUND",
    "DELTA_VERSIONS_NOT_CONTIGUOUS",
    "DELTA_MISSING_CHANGE_DATA",
    "DELTA_LOG_FILE_NOT_FOUND",
    "DELTA_SCHEMA_CHANGED",
)
LOST = ("KAFKA_DATA_LOSS", "OffsetOutOfRangeException")
TRACEBACK = "Traceback (most recent call last)"
NO_ROOM = ("No space left on device", "Read-only file system", "Permission denied", "Disk quota exceeded")
PASSING = (
    "DELTA_CONCURRENT",
    "DELTA_METADATA_CHANGED",  # as a concurrent write: the batch is done again, and held against the table as it is then
    "DELTA_PROTOCOL_CHANGED",
    "Failed to commit transaction",
    "ConcurrentAppendException",
    "Connection refused",
    "Connection reset",
    "Unable to execute HTTP request",  # the SDK under S3A
    "AWSServiceThrottledException",
    "SocketTimeoutException",
    "Could not find block",
    "CHECKPOINT_RDD_BLOCK_ID_NOT_FOUND",
    "org.apache.kafka.common.errors.TimeoutException",
    "org.apache.kafka.common.errors.DisconnectException",
    "Lost executor",
    "ExecutorLostFailure",
)


def classify(cause: BaseException, flow: str, batch_id: int | None) -> BaseException:
    """The error of ours that says what happens next; what is ours already, and what ends the process, stays as it is.

    Spark hands down text, and some Delta errors break PySpark's own look-up of their class: so the text is what is read.
    """
    if isinstance(cause, MicrobatchError) or not isinstance(cause, Exception):
        return cause
    text = (
        f"{cause} {getattr(cause, 'java_exception', '')}"
        if not isinstance(cause, OSError) or cause.strerror is None
        else f"{cause.strerror}: {cause.filename}"
    )
    if ours := uncarried(text):
        return ours
    if any(mark in text for mark in HELD):
        return JobHeld(flow, "its checkpoint or table was written by another run meanwhile")
    if any(mark in text for mark in CHANGED):
        return StateChanged(
            flow, line(text), "the table it reads was changed from outside; read it anew with `--accept checkpoint`"
        )
    if any(mark in text for mark in LOST):
        return StateChanged(
            flow, line(text), "messages are gone before they were read; start anew with `--accept checkpoint`"
        )
    if any(mark in text for mark in NO_ROOM):
        return WarehouseUnavailable("the warehouse or the checkpoints cannot be written", line(text))
    if any(mark in text for mark in PASSING):
        return TransientError(f"flow {flow}: {line(text)}")
    return BatchFailed(flow, batch_id, f"{type(cause).__name__}: {line(text)}")


def line(text: str) -> str:
    """The line of a long message of Java's that says what is wrong; one that ends where Python's traceback begins goes on with
    what was raised there."""
    empty = ("at ", "==", "An error occurred while calling")
    lines = [each.strip(" :\t") for each in text.splitlines() if each.strip() and not each.strip().startswith(empty)]
    told = [each for each in lines if any(mark in each for mark in (*HELD, *CHANGED, *LOST, *NO_ROOM, *PASSING))]
    found = (told or lines or ["no message"])[0]
    before, traceback, _ = found.partition(TRACEBACK)
    if traceback:
        raised = (each for each in text.rpartition(TRACEBACK)[2].splitlines()[1:] if each and not each[0].isspace())
        found = before + next(raised, "no message")
    return shortened(found, 400)


def with_back_off(
    attempt: Callable[[], Result], attempts: int, first_wait_s: float, max_wait_s: float, told: Callable[[str], None]
) -> Result:
    """Call `attempt`; after a transient error again, at most `attempts` times, after 1, 2, 4 times the first wait with jitter.

    Where the other side says how long it wants to be left alone, that is waited for; what is longer than `max_wait_s` is
    left to the scheduler.

    Args:
        told: is given a line before each wait.

    Raises:
        TransientError: the last one, when all attempts failed. Any other error at once.
    """
    from tenacity import (
        RetryCallState,
        Retrying,
        retry_if_exception,
        stop_after_attempt,
        wait_exponential,
        wait_random,
    )

    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0
        told(f"{error}; again in {wait:.1f} s ({state.attempt_number} of {attempts})")

    backing_off = wait_exponential(multiplier=first_wait_s, max=max_wait_s) + wait_random(0, first_wait_s / 2)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(backing_off(state), error.wait_s if isinstance(error, TransientError) else 0)

    retrying = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, TransientError) and error.wait_s <= max_wait_s),
        stop=stop_after_attempt(attempts + 1),
        wait=wait,
        before_sleep=say,
        reraise=True,
    )
    return retrying(attempt)


def left_alone_s(error: TransientError, failures: int) -> float:
    """How long a run that goes on leaves alone what failed [s]: ever longer, and no shorter than it asked for.

    Args:
        failures: how many looks failed before this one, without one in between that did not.
    """
    backing_off = min(LONGEST_S, 2.0 ** min(failures, 9))  # a thousand failures would overflow the number itself
    return min(max(backing_off, error.wait_s), threading.TIMEOUT_MAX)


class Pace:
    """At most so many calls a second: each waits until it is its turn.

    Args:
        per_s: None: no wait.
    """

    def __init__(self, per_s: float | None) -> None:
        self._apart_s = 1 / per_s if per_s else 0.0
        self._next = time.monotonic()

    def wait(self) -> None:
        """Return when the next call may be made."""
        now = time.monotonic()
        if now < self._next:
            time.sleep(self._next - now)
        self._next = max(now, self._next) + self._apart_s
