"""Whether a run has so little before it that Java had better compile little (see `session.LITTLE`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from microbatch.config import LoadedJob, Suite
from microbatch.errors import MicrobatchError
from microbatch.job import Flow, Source, tables_read
from microbatch.places import is_local
from microbatch.runner.inputs import input_of
from microbatch.sink.tables import Table
from microbatch.sources import Files

# Bytes of new files, and of each table that is read or written. A session for little saves three seconds of a start and then
# takes up to half as long again: they meet at 10 MiB of JSON through four flows, which compressed are one.
MOST_NEW, MOST_THERE = 1 << 20, 64 << 20


def is_little(suite: Suite, wanted: Sequence[tuple[LoadedJob, Flow]]) -> bool:
    """Whether all that these flows can read is little: the new files, and the tables on this machine.

    What a server has, or a store, is not asked: it may be much.
    """
    try:
        new = [_new_bytes(suite, job, flow) for job, flow in wanted if not isinstance(flow.reads, str)]
        if None in new or sum(size or 0 for size in new) > MOST_NEW:
            return False
        return all(_is_light(suite, name) for name in _tables(wanted))
    except (MicrobatchError, OSError):
        return False  # the flow will say what is wrong with it


def _new_bytes(suite: Suite, job: LoadedJob, flow: Flow) -> int | None:
    source = flow.reads.name if isinstance(flow.reads, Source) else ""
    if job.conf.sources[source].kind != "files":
        return None
    input_ = input_of(suite, job, flow)
    assert isinstance(input_, Files)
    return input_.pending_bytes()


def _tables(wanted: Sequence[tuple[LoadedJob, Flow]]) -> Iterator[str]:
    yield from {name for _, flow in wanted for name in (*tables_read(flow), flow.writes.table)}


def _is_light(suite: Suite, name: str) -> bool:
    table = Table(suite.environment.storage["warehouse"], name)
    if not is_local(table.path):
        return False
    if not table.exists():
        return True
    sizes = pa.table(table.open().get_add_actions()).column("size_bytes").to_pylist()
    return sum(sizes) <= MOST_THERE
