"""What the tests of the file source share: files of a folder read straight, and a job that takes files in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from microbatch.commands import audit
from microbatch.config.kinds import FilesConf
from microbatch.sources.files import read
from microbatch.testing import Bench

Rows = list[dict[str, Any]]
JOB = '''
"""Things, as they come."""

from microbatch import Append, Flow, Job, Source

JOB = Job(Flow("ingest", reads=Source("things", schema="id BIGINT, amount DECIMAL(6,2)"), writes=Append("bronze.things")))
'''
CONF = """
sources:
  things: {{kind: files, path: "${{landing}}/things", {more}}}
retry: {{attempts: 0}}
"""


@pytest.fixture(scope="session")
def reading(spark) -> Callable[..., Rows]:
    """Read files as the engine does, without a run: `reading("json", schema, paths, options=…)`, rows in their order."""

    def collect(format_: str, schema: str, paths: Iterable[Path] | Path, **conf: Any) -> Rows:
        paths = [paths] if isinstance(paths, Path) else list(paths)
        made = FilesConf(kind="files", format=format_, path=str(paths[0].parent), **conf)
        return [row.asDict() for row in read(spark, schema, made, [str(path) for path in paths]).collect()]

    return collect


class Things:
    """A bench with one flow that appends files to `bronze.things`."""

    def __init__(self, bench: Bench, more: str) -> None:
        self.bench = bench
        bench.write("jobs/things.py", JOB)
        bench.write("conf/base/things.yml", CONF.format(more=more))
        self.folder = Path(bench.storage["landing"]) / "things"

    def land(self, name: str, content: bytes | str) -> Path:
        """Put a file there as somebody else would: not through a name that is unseen, and into folders too."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    def ids(self) -> list[int]:
        return sorted(row.id for row in self.bench.read("bronze.things").collect())

    def letters(self) -> list[tuple[str, str, str]]:
        """Kind, payload and the first reason's message of each open letter."""
        return sorted(
            (row.kind, row.payload, row.reasons[0].message)
            for row in self.bench.quarantine("things").where("status = 'open'").collect()
        )

    def audit(self) -> int:
        suite = self.bench.suite()
        return audit.execute(suite, suite.job("things"))


@pytest.fixture
def things(bench: Bench) -> Callable[..., Things]:
    """`things("format: csv")`: a job over files of that format."""
    return lambda more="format: json": Things(bench, more)


def lines(*ids: int) -> str:
    """A JSON file with one object an id."""
    return "".join(f'{{"id": {number}}}\n' for number in ids)
