"""Kafka topics as a stream."""

from microbatch.sources.kafka.broker import Broker
from microbatch.sources.kafka.formats import Format
from microbatch.sources.kafka.source import Kafka

__all__ = ["Broker", "Format", "Kafka"]
