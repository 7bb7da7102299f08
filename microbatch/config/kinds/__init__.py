"""The kinds of sources that conf may name: a record for each, in a module of its own."""

from collections.abc import Mapping

from microbatch.config.kinds.files import FilesConf
from microbatch.config.kinds.kafka import KafkaConf
from microbatch.config.kinds.rest import RestConf
from microbatch.config.kinds.source import SourceConf

KINDS: Mapping[str, type[SourceConf]] = {"files": FilesConf, "kafka": KafkaConf, "rest": RestConf}

__all__ = ["KINDS", "FilesConf", "KafkaConf", "RestConf", "SourceConf"]
