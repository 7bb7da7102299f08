"""What a long message of Java's comes down to."""

from __future__ import annotations

import threading

import pytest

from microbatch.errors import TransientError
from microbatch.retry import LONGEST_S, classify, left_alone_s, line

IN_PYTHON = """[STREAM_FAILED] Query [id = e8f2] terminated: [PYTHON_DATA_SOURCE_ERROR] Failed to plan Python data source: \
Traceback (most recent call last):
  File "worker.py", line 9, in main
    reader = read(infile)
             ^^^^^^^^^^^^
ModuleNotFoundError: No module named 'pyarrow'
 SQLSTATE: 38000
\tat org.apache.spark.sql.streaming.Query.run(Query.scala:1)
"""
CHAINED = """An error occurred while calling o1.load
Job aborted: Traceback (most recent call last):
  File "a.py", line 1, in a
KeyError: 'a'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "b.py", line 2, in b
ValueError: no b
"""


def test_what_python_raised_inside_spark_is_told_in_the_line():
    told = line(IN_PYTHON)
    assert told.endswith("Failed to plan Python data source: ModuleNotFoundError: No module named 'pyarrow'")
    assert "PYTHON_DATA_SOURCE_ERROR" in told


def test_of_several_that_led_to_each_other_the_last_is_told():
    assert line(CHAINED) == "Job aborted: ValueError: no b"


def test_a_message_without_a_traceback_is_its_first_line_that_says_something():
    assert line("An error occurred while calling o1.load\n== Plan ==\nno such column\n\tat x") == "no such column"
    assert line("") == "no message"


@pytest.mark.parametrize("name", ["DELTA_METADATA_CHANGED", "DELTA_PROTOCOL_CHANGED", "DELTA_CONCURRENT_APPEND"])
def test_a_commit_that_came_in_between_is_tried_again(name: str):
    assert isinstance(
        classify(RuntimeError(f"[{name}] The metadata was changed by a concurrent update"), "take", 0), TransientError
    )


def test_what_python_raised_is_classified_by_its_words():
    text = IN_PYTHON.replace("ModuleNotFoundError: No module named 'pyarrow'", "OSError: Connection refused")
    assert type(classify(RuntimeError(text), "take", 0)).__name__ == "TransientError"


def test_what_does_not_answer_is_left_alone_ever_longer_and_never_less_than_it_asks_for():
    away = TransientError("no answer")
    assert [left_alone_s(away, failures) for failures in (0, 1, 2, 8, 9)] == [1, 2, 4, 256, LONGEST_S]
    assert left_alone_s(away, 100_000) == LONGEST_S  # a year of looks
    away.wait_s = 3600
    assert [left_alone_s(away, failures) for failures in (0, 100_000)] == [3600, 3600]
    away.wait_s = 1e300
    assert left_alone_s(away, 0) == threading.TIMEOUT_MAX  # nobody can wait longer
