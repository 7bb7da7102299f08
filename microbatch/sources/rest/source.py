"""An HTTP API as a stream of files: what it answers is kept on the disk as it came, and read from there.

An API cannot be asked the same thing twice and be trusted to say the same: so its records are fetched once, before a JVM is
started, each kept to the character in a spool below the flow's checkpoint, and a batch that is run again reads the same bytes.

Guarantee:
    Exactly once for what the server gives: a fetch counts when its last page is there; one that is cut off is made anew. A
    record that was in the last answer, to the character, is not taken in again: so a server may answer `since` with "from" or
    with "after", or by whole days, and without a cursor each run takes in what is new or changed in the list. With paging by
    offset or page a record that comes on two pages is one, for a list that grows while it is read shifts; and what shifts the
    other way, because records were deleted meanwhile, no client can see: page by link or cursor where the server can.
What the server must allow:
    GET with the credentials of conf. Nothing is written to it.
What it costs the server:
    One request a page and run, `rate_per_s` at most, and no more than it allows by Retry-After. Where there is nothing new,
    one request. Paging by offset or page asks for one page more than there is.
What it costs here:
    About 100 bytes of memory for each record of one answer, and its pages on the disk for 30 days.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from microbatch.errors import StateChanged
from microbatch.sources.files import Files
from microbatch.sources.listing import File
from microbatch.sources.record import Record
from microbatch.sources.rest.client import Again, Client, Server
from microbatch.sources.rest.fetch import Asked, Fetch
from microbatch.sources.rest.spool import Spool, Writing
from microbatch.sources.tables import numbered

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FILES_PER_BATCH = 8  # of 32 MiB each


@dataclass(frozen=True)
class Spooled:
    """The spool, as the files it is."""

    path: str
    metadata: bool
    unknown_fields: str
    format: str = "json"
    options: Mapping[str, str] = field(default_factory=dict)
    max_files_per_batch: int | None = FILES_PER_BATCH
    max_bytes_per_batch: int | None = None


@dataclass(frozen=True)
class Rest(Files):
    """The records of an API, as one flow reads them.

    Attributes:
        server, asked: where, and what for.
        again: calls what it is given until it works, or waiting is no use.
    """

    unit: ClassVar[str] = "record"

    server: Server = field(kw_only=True)
    asked: Asked = field(kw_only=True)
    again: Again = field(kw_only=True)

    @cached_property
    def spool(self) -> Spool:
        return Spool(self.checkpoint)

    def fetch(self) -> None:
        """Bring what is new into the spool, whole or not at all.

        Raises:
            SourceUnavailable: a page did not come, after all tries.
            StateChanged: the server goes in a circle, or the spool is not as it was left.
            ConfigError: the server refuses, or its pages are not what conf says.
        """
        self._refuse_lost()
        committed = set(numbered(self.checkpoint / "commits"))
        read = Record(self.checkpoint).by_batch()
        self.spool.prune({path for batch, files in read.items() if batch in committed for path in files})
        fetches = self.spool.all()
        last = fetches[-1] if fetches else None
        answer = self.spool.answer(last.number) if last else Counter[bytes]()
        fetch = Fetch(self.name, self.flow, self.asked, last.cursor if last else None, answer)
        writing = Writing(self.spool, last.number + 1 if last else 1)
        try:
            with Client(self.name, self.server, self.again) as client:
                fetch.into(writing, client)
        except BaseException:
            writing.drop()
            raise

    def pending(self) -> int:
        """Records in the spool that no batch has taken in yet; what the server has beside them is known after `fetch`.

        Raises:
            StateChanged: the spool is not as it was left.
        """
        self._refuse_lost()
        if not self.spool.folder.is_dir() or not super().pending():
            return 0
        taken = Record(self.checkpoint).all()
        files = {path: records for each in self.spool.all() for path, records in self.spool.paths(each).items()}
        return sum(records for path, records in files.items() if path not in taken)

    def notes(self) -> list[str]:
        """See `Advising`: what is pending is what lies in the spool."""
        return [f"source {self.name} is asked for what is new by a run; counted here is what a run fetched before"]

    def rows(self, spark: SparkSession, files: list[File]) -> DataFrame:
        """The rows of these files of the spool; `metadata` says when their answer came."""
        rows = super().rows(spark, files)
        return rows.withColumnRenamed("_file_modified", "_fetched_at").drop("_file") if self.conf.metadata else rows

    def sample(self, spark: SparkSession, most: int) -> DataFrame:
        """At most so many rows that would come next: those in the spool, then those of the server's first page."""
        import tempfile
        from pathlib import Path

        fetches = self.spool.all()
        taken = Record(self.checkpoint).all()
        spooled = [path for each in fetches for path in self.spool.paths(each) if path not in taken]
        beside = Path(tempfile.mkdtemp(prefix="microbatch-preview-"))
        try:
            page = beside / "page.json"
            answer = self.spool.answer(fetches[-1].number) if fetches else Counter[bytes]()
            fetch = Fetch(self.name, self.flow, self.asked, fetches[-1].cursor if fetches else None, answer)
            with Client(self.name, self.server, self.again) as client:
                records = next(fetch.pages(client))
            page.write_bytes(b"".join(r.text.encode(errors="surrogateescape") + b"\n" for r in records))
            paths = [*spooled, str(page)]
            rows = self.rows(spark, [File(path, 0, 0) for path in paths])
            return rows.limit(most).localCheckpoint(eager=True)
        finally:
            shutil.rmtree(beside)

    def _refuse_lost(self) -> None:
        """The spool belongs to the checkpoint: without it nobody knows where to go on, or which records are in already."""
        taken = Record(self.checkpoint).all()
        if taken and not self.spool.all():
            raise StateChanged(self.flow, f"the spool {self.spool.folder} is gone", _REMEDY)
        home = str(self.spool.folder)
        if elsewhere := next((path for path in taken if not path.startswith(home)), None):
            raise StateChanged(self.flow, f"the checkpoint was moved: it has read {elsewhere}", _REMEDY)


_REMEDY = "put it back, or fetch everything anew with `--accept checkpoint` (an Append doubles what it holds)"
