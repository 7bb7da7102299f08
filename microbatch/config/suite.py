"""A suite as it was loaded: frozen, checked, and able to say who writes and who reads a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from microbatch.config.models import Environment, JobConf
from microbatch.config.names import hint
from microbatch.errors import ConfigError, Problem
from microbatch.job import Flow, in_order, tables_read
from microbatch.outcome import masks

if TYPE_CHECKING:
    from microbatch.checks import ExpectationFile


@dataclass(frozen=True)
class LoadedJob:
    """One job with all that is known about it.

    Attributes:
        doc: the docstring of its file; empty where it has none.
        file: its file, absolute.
        flows: in the order their tables require.
        expectations: by flow name, for the flows that have some.
    """

    name: str
    doc: str
    file: Path
    flows: tuple[Flow, ...]
    conf: JobConf
    expectations: Mapping[str, ExpectationFile]

    @property
    def mask(self) -> tuple[str, ...]:
        """The columns whose values are hidden in letters, messages and pages: those that any source masks, in all flows."""
        return tuple(dict.fromkeys(name for conf in self.conf.sources.values() for name in conf.mask))

    def masks(self, *columns: str) -> bool:
        """Whether one of these columns is masked; names are told apart without their case, as Spark does it."""
        return masks(self.mask, columns)

    def flow(self, name: str) -> Flow:
        """The flow of that name.

        Raises:
            ConfigError: there is none; names the nearest.
        """
        for flow in self.flows:
            if flow.name == name:
                return flow
        known = [flow.name for flow in self.flows]
        raise ConfigError(Problem(f"jobs/{self.name}.py", f"there is no flow {name}{hint(name, known)}"))


@dataclass(frozen=True)
class Suite:
    """A folder of jobs, in one environment.

    Attributes:
        root: absolute.
        version: 12 hex digits over the files that say what runs (jobs, transforms, conf, expectations).
        jobs: by name, in the order of their names.
        spark_conf: the environment's own Spark settings.
        secrets: values that no text that leaves the process may hold; the longest first.
    """

    root: Path
    env: str
    version: str
    environment: Environment = field(repr=False)
    jobs: Mapping[str, LoadedJob]
    spark_conf: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    def job(self, name: str) -> LoadedJob:
        """The job of that name.

        Raises:
            ConfigError: there is none; names the nearest.
        """
        if name not in self.jobs:
            raise ConfigError(Problem("jobs", f"there is no job {name}{hint(name, self.jobs)}"))
        return self.jobs[name]

    def writer_of(self, table: str) -> tuple[str, Flow]:
        """The job and the flow that write a table.

        Raises:
            ConfigError: none does; names the nearest table.
        """
        for job in self.jobs.values():
            for flow in job.flows:
                if flow.writes.table == table:
                    return job.name, flow
        known = [flow.writes.table for job in self.jobs.values() for flow in job.flows]
        raise ConfigError(Problem("jobs", f"no flow writes the table {table}{hint(table, known)}"))

    def readers_of(self, table: str) -> tuple[tuple[str, Flow], ...]:
        """The jobs and flows that read a table, streamed or as a snapshot."""
        return tuple((job.name, flow) for job in self.jobs.values() for flow in job.flows if table in tables_read(flow))

    def ordered(self, names: Iterable[str]) -> list[tuple[LoadedJob, Flow]]:
        """The flows of some jobs so that each comes after those that write what it reads, across all of them.

        Raises:
            ConfigError: there is no such job.
        """
        chosen = {name: self.job(name) for name in names}
        every = [*chosen.values(), *(job for name, job in self.jobs.items() if name not in chosen)]
        owners = {flow.writes.table: job for job in every for flow in job.flows}
        placed = in_order([flow for job in every for flow in job.flows])  # of all: a job between two orders them
        return [(job, flow) for flow in placed if (job := owners[flow.writes.table]).name in chosen]
