"""The kinds of sources that conf may name: a record for each, in a module of its own."""

from collections.abc import Mapping

from microbatch.config.kinds.delta import DeltaConf
from microbatch.config.kinds.files import FilesConf
from microbatch.config.kinds.kafka import KafkaConf
from microbatch.config.kinds.postgres import PostgresConf
from microbatch.config.kinds.rest import RestConf
from microbatch.config.kinds.source import SourceConf

KINDS: Mapping[str, type[SourceConf]] = {
    "delta": DeltaConf,
    "files": FilesConf,
    "kafka": KafkaConf,
    "postgres": PostgresConf,
    "rest": RestConf,
}

__all__ = ["KINDS", "DeltaConf", "FilesConf", "KafkaConf", "PostgresConf", "RestConf", "SourceConf"]
