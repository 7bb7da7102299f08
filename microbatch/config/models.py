"""What conf may say: one frozen record for each mapping. Unknown keys are refused, nothing is guessed.

The records of the kinds of sources are in `kinds`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field, field_validator

from microbatch.config.connection import Connection
from microbatch.config.kinds import SourceConf
from microbatch.config.names import hint
from microbatch.config.values import Amount, AmountOrZero, Boolean, CountOrZero, FilePath, Strict, Text, a_number

METRICS = (
    "rows_read",
    "rows_written",
    "rows_quarantined",
    "quarantined_ratio",
    "rows_superseded",
    "duration_s",
    "freshness_h",
    "lag_rows",
    "volume_ratio",
    "open_quarantine",
    "quarantine_age_h",
    "failed",
    "sla_missed",
)
ROOTS = ("landing", "warehouse", "checkpoints", "reports")


class Channel(Strict):
    """Where alerts go. An empty `url` sends nothing: a channel that this environment does not have."""

    url: str = Field(repr=False)


class Lineage(Strict):
    """Where OpenLineage events go: a server, or a file with one event a line."""

    url: str | None = Field(None, repr=False)
    file: FilePath | None = None


class Metrics(Strict):
    """Where Prometheus metrics go: a file in its text format, a port that serves them while a run goes on, or both.

    Attributes:
        host: the address whose port it is; the loopback address unless said, so that nobody else sees it.
    """

    file: FilePath | None = None
    host: Text = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535), BeforeValidator(a_number)] | None = None


class Environment(Strict):
    """Where a suite runs.

    Attributes:
        storage: root name -> absolute local path or URI; always has landing, warehouse, checkpoints and reports.
        catalog: tables live in the session's catalog, not at paths under the warehouse.
    """

    storage: dict[str, str]
    connections: dict[str, Connection] = Field(default_factory=dict)
    channels: dict[str, Channel] = Field(default_factory=dict)
    catalog: Boolean = False
    lineage: Lineage | None = None
    metrics: Metrics | None = None


class Schedule(Strict):
    """When a job runs, for whatever starts it: nothing in a run waits for it.

    Attributes:
        cron: five fields, in `timezone`.
        sla_m: minutes from the start by which a run must be done; None: no promise.
        retries: how often the scheduler starts a failed run again, `retry_delay_m` minutes apart.
        tasks: one task for the job, or one for each flow.
    """

    cron: Text
    timezone: Text = "UTC"
    sla_m: Amount | None = None
    retries: CountOrZero = 0
    retry_delay_m: AmountOrZero = 5
    tasks: Literal["job", "flow"] = "job"

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str) -> str:
        from croniter import CroniterBadDateError, croniter  # 20 ms that a job without a schedule does not pay

        if len(value.split()) != 5 or not croniter.is_valid(value):
            raise ValueError(f'"{value}" is not a cron expression of five fields, such as "0 2 * * *"')
        try:
            croniter(value).get_next()
        except CroniterBadDateError:
            raise ValueError(f'"{value}" never comes: there is no such day') from None
        return value

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str) -> str:
        import zoneinfo

        try:
            zoneinfo.ZoneInfo(value)
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
            near = hint(value, zoneinfo.available_timezones()).partition("there is")[0].rstrip("; ")
            raise ValueError(f"there is no time zone {value}{near or '; write one such as Europe/Berlin'}") from None
        return value


class Retry(Strict):
    """How often a batch is run again after a transient fault, and the waits between, doubling up to the last one."""

    attempts: CountOrZero = 3
    first_wait_s: AmountOrZero = 1
    max_wait_s: AmountOrZero = 60


class Condition(NamedTuple):
    """What an alert waits for."""

    metric: str
    op: str
    threshold: float

    def holds(self, value: float) -> bool:
        """Whether a value of the metric raises the alert."""
        return _OPERATORS[self.op](value, self.threshold)


_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": lambda value, threshold: value > threshold,
    ">=": lambda value, threshold: value >= threshold,
    "<": lambda value, threshold: value < threshold,
    "<=": lambda value, threshold: value <= threshold,
    "==": lambda value, threshold: value == threshold,
    "!=": lambda value, threshold: value != threshold,
}
_WHEN = re.compile(
    r"\s*(?P<metric>\w+)\s*(?P<op>[<>]=?|==|!=)\s*(?P<threshold>-?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?)\s*"
)


class Alert(Strict):
    """When somebody is told. `when` is `<metric> <op> <number>`; `notify` names channels of the environment.

    A job may have the same `when` once for each severity.
    """

    when: str
    severity: Literal["info", "warning", "critical"] = "warning"
    notify: tuple[str, ...] = ()

    @field_validator("when")
    @classmethod
    def _when(cls, value: str) -> str:
        parts = _WHEN.fullmatch(value)
        if parts is None:
            operators = " ".join(_OPERATORS)
            raise ValueError(
                f'"{value}" is not <metric> <op> <number>, such as "freshness_h > 26"; <op> is {operators}'
            )
        if parts["metric"] not in METRICS:
            raise ValueError(f"there is no metric {parts['metric']}{hint(parts['metric'], METRICS)}")
        return value

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from every other alert of its job: `when` and `severity`."""
        return self.when, self.severity

    @property
    def condition(self) -> Condition:
        """`when`, taken apart."""
        parts = _WHEN.fullmatch(self.when)
        if parts is None:  # cannot be: the validator has let it through
            raise ValueError(self.when)
        return Condition(parts["metric"], parts["op"], float(parts["threshold"]))


class JobConf(Strict):
    """Where a job's sources are, how much is read at once, when it runs and who is told.

    Attributes:
        sources: by the name that the job's `Source` has; each of the class that its `kind` names.
    """

    owner: Text | None = None
    sources: dict[str, SourceConf] = Field(default_factory=dict)
    schedule: Schedule | None = None
    retry: Retry = Retry()
    alerts: tuple[Alert, ...] = ()
