"""What a flow reads, made from conf: one maker for each kind of source, and the tables of the suite."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from microbatch.config import Connection, FilesConf, LoadedJob, PostgresConf, SourceConf, Suite
from microbatch.config.kinds import DeltaConf
from microbatch.errors import ConfigError, Problem
from microbatch.job import Append, Flow, Source
from microbatch.places import Place, place
from microbatch.runner import servers
from microbatch.runner.accept import starting_version
from microbatch.sink.tables import Table
from microbatch.sources import Files, Stream, TableInput
from microbatch.sources.external import Delta, Elsewhere


@dataclass(frozen=True)
class Reader:
    """Who reads a source: the flow, where its checkpoint is, and what somebody gives up."""

    suite: Suite
    job: LoadedJob
    flow: Flow
    source: Source
    checkpoint: Place
    accept_files: bool
    told: Callable[[str], None]

    def connection(self, conf: SourceConf) -> Connection:
        """The connection that the source's conf names; an empty one where it names none."""
        return self.suite.environment.connections.get(getattr(conf, "connection", None) or "", Connection())


def checkpoint_of(suite: Suite, job: LoadedJob, flow: Flow) -> Place:
    """`<checkpoints>/<job>/<flow>`."""
    return place(suite.environment.storage["checkpoints"]) / job.name / flow.name


def input_of(
    suite: Suite,
    job: LoadedJob,
    flow: Flow,
    accept_files: bool = False,
    told: Callable[[str], None] = lambda line: None,
) -> Files | TableInput | Stream:
    """What the flow reads, as a thing that can be asked what is pending and be streamed.

    Args:
        told: is given a line before each wait of a source that is tried again.
    """
    checkpoint = checkpoint_of(suite, job, flow)
    if isinstance(flow.reads, Source):
        conf = job.conf.sources[flow.reads.name]
        return MAKERS[conf.kind](Reader(suite, job, flow, flow.reads, checkpoint, accept_files, told), conf)
    changes = not isinstance(suite.writer_of(flow.reads)[1].writes, Append)
    table = Table(suite.environment.storage["warehouse"], flow.reads)
    begins = starting_version(checkpoint)
    return TableInput(table, checkpoint, changes and not flow.recompute_by, tuple(flow.recompute_by), begins)


def reads_of(suite: Suite, job: LoadedJob, flow: Flow) -> dict[str, Any]:
    """What a checkpoint's offsets are offsets of: when it changes, they mean nothing any more."""
    if isinstance(flow.reads, Source):
        conf = job.conf.sources[flow.reads.name]
        return {"kind": conf.kind, **conf.identity(), "schema": " ".join(flow.reads.schema.split())}
    changes = not isinstance(suite.writer_of(flow.reads)[1].writes, Append)
    return {"kind": "table", "table": flow.reads, "changes": changes or bool(flow.recompute_by)}


def _files(reader: Reader, conf: SourceConf) -> Files:
    assert isinstance(conf, FilesConf)
    source, flow = reader.source, reader.flow.name
    return Files(source.name, flow, source.schema, conf, reader.checkpoint, reader.accept_files)


def _delta(reader: Reader, conf: SourceConf) -> TableInput:
    assert isinstance(conf, DeltaConf)
    warehouse, suite = reader.suite.environment.storage["warehouse"], reader.suite
    own = [flow.name for job in suite.jobs.values() for flow in job.flows if flow.writes.table == conf.table]
    if own:
        what = f"flow {own[0]} of this suite writes {conf.table}; read it by its name: reads={conf.table!r}"
        raise ConfigError(Problem(f"jobs/{reader.job.name}.py flow {reader.flow.name}", what))
    place = conf.path or Table(warehouse, conf.table or "").path
    return Delta(
        Elsewhere(place, conf.table or place),
        reader.checkpoint,
        changes=False,
        starting_version=conf.starting_version,
        source=reader.source.name,
        flow=reader.flow.name,
        schema=reader.source.schema,
        metadata=conf.metadata,
        unknown_fields=conf.unknown_fields,
        max_files=conf.max_files_per_batch,
    )


def _postgres(reader: Reader, conf: SourceConf) -> Stream:
    from microbatch.sources.postgres import (
        ChangesInput,
        CursorInput,
        Server,
        Slot,
    )  # 0.15 s that other suites do not pay

    assert isinstance(conf, PostgresConf)
    connection = reader.suite.environment.connections[conf.connection]
    server = Server(reader.source.name, reader.flow.name, conf.connection, connection.uri or "", connection.options)
    if conf.mode == "cursor":
        return CursorInput(server, reader.source.schema, conf, reader.checkpoint)
    named = f"microbatch_{reader.job.name}_{reader.source.name}"
    of_source = [flow.name for flow in reader.job.flows if flow.reads == reader.source]
    # A slot has one reader: the second flow that reads a source needs one of its own.
    own = "" if of_source.index(reader.flow.name) == 0 else f"_{reader.flow.name}"
    slot = Slot(server, _short((conf.slot or named) + own), _short(conf.publication or named))
    return ChangesInput(server, reader.source.schema, conf, slot, reader.checkpoint)


def _short(name: str) -> str:
    """A name PostgreSQL takes whole: of one that is too long the end gives way to a digest of it."""
    return name if len(name.encode()) <= 63 else f"{name[:54]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


MAKERS: Mapping[str, Callable[[Reader, Any], Files | TableInput | Stream]] = {
    "delta": _delta,
    "files": _files,
    "kafka": servers.kafka,
    "postgres": _postgres,
    "rest": servers.rest,
}
