"""A suite's conf, jobs and expectations, read and checked before Spark is started."""

from microbatch.config.connection import Auth, Connection
from microbatch.config.kinds import KINDS, FilesConf, PostgresConf, SourceConf
from microbatch.config.loader import load
from microbatch.config.models import Alert, Channel, Condition, Environment, JobConf, Retry, Schedule
from microbatch.config.suite import LoadedJob, Suite

__all__ = [
    "KINDS",
    "Alert",
    "Auth",
    "Channel",
    "Condition",
    "Connection",
    "Environment",
    "FilesConf",
    "JobConf",
    "LoadedJob",
    "PostgresConf",
    "Retry",
    "Schedule",
    "SourceConf",
    "Suite",
    "load",
]
