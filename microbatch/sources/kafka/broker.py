"""A look at a topic in plain Python, without a JVM: its id, and from where to where each partition goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from microbatch.errors import ConfigError, MicrobatchError, Problem, SourceUnavailable
from microbatch.sources.kafka.options import of_librdkafka

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

ANSWER_S = 10  # for one request, connecting and signing in included
SCAN_S = 3  # looking for a first message; after that there is taken to be one
REFUSALS = (
    *("_AUTHENTICATION", "_SSL", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM"),
    *("TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED", "_INVALID_ARG"),
)

Offsets = dict[int, int]


class NoTopic(Exception):
    """There is no such topic; `there` names those there are."""

    def __init__(self, there: list[str]) -> None:
        super().__init__(there)
        self.there = there


@dataclass(frozen=True)
class Topic:
    """A topic as it is now.

    Attributes:
        id: of this very topic: one of the same name that is made anew has another.
        first: partition -> the oldest offset it still holds.
        end: partition -> the offset behind the last message that counts: open transactions are not in it.
    """

    id: str
    first: Offsets
    end: Offsets


@dataclass(frozen=True)
class Broker:
    """The brokers of one source.

    Attributes:
        options: how to sign in, and what else conf says.
    """

    source: str
    servers: str = field(repr=False)
    options: Mapping[str, str] = field(repr=False)

    @cached_property
    def _refusals(self) -> list[str]:
        return []

    @property
    def _settings(self) -> dict[str, Any]:
        return {
            "bootstrap.servers": self.servers,
            "log_level": 0,  # it writes to stderr; what it has to say comes as errors too
            # Without the broker: a client that holds it, as it holds the client, stays until Python looks for cycles.
            "error_cb": partial(_note, self._refusals),
            "socket.timeout.ms": ANSWER_S * 1000,
            **of_librdkafka(self.options),
        }

    @cached_property
    def _admin(self) -> AdminClient:
        from confluent_kafka.admin import AdminClient

        return AdminClient(self._settings)

    def look(self, topic: str) -> Topic:
        """The topic as it is now.

        Raises:
            NoTopic: there is none of that name.
            SourceUnavailable: no broker answered.
            ConfigError: they refuse, or the options are none that a client can be made with.
        """
        from confluent_kafka import IsolationLevel, TopicCollection, TopicPartition
        from confluent_kafka.admin import OffsetSpec

        with self._told():
            # All topics: asking for one by its name may make it.
            there = self._admin.list_topics(timeout=ANSWER_S).topics
            if topic not in there:
                raise NoTopic(sorted(name for name in there if not name.startswith("__")))
            described = self._admin.describe_topics(TopicCollection([topic]), request_timeout=ANSWER_S)[topic].result()
            partitions = [TopicPartition(topic, number) for number in there[topic].partitions]

            def offsets(spec: Any) -> Offsets:
                futures = self._admin.list_offsets(
                    dict.fromkeys(partitions, spec),
                    isolation_level=IsolationLevel.READ_COMMITTED,
                    request_timeout=ANSWER_S,
                )
                return {at.partition: future.result().offset for at, future in sorted(futures.items())}

            return Topic(str(described.topic_id), offsets(OffsetSpec.earliest()), offsets(OffsetSpec.latest()))

    def has_message(self, topic: str, offsets: Offsets) -> bool:
        """Whether there is a message behind these offsets: the marks of transactions, and what they took back, are none.

        Where it takes long to tell, true: a batch without rows is no harm, a message that waits for ever is.
        """
        from confluent_kafka import Consumer, KafkaError, TopicPartition

        settings = {
            **self._settings,
            "group.id": "microbatch",  # needed, and not used: nothing is committed there
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 10,
        }
        with self._told():
            consumer = Consumer(settings)
            try:
                consumer.assign([TopicPartition(topic, partition, at) for partition, at in offsets.items()])
                ended, until = set[int](), time.monotonic() + SCAN_S
                while time.monotonic() < until and len(ended) < len(offsets):
                    message = consumer.poll(0.1)
                    if message is None:
                        continue
                    error = message.error()
                    if error is None:
                        return True
                    if error.code() == KafkaError._PARTITION_EOF:
                        ended.add(message.partition() or 0)
                return len(ended) < len(offsets)
            finally:
                consumer.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What a client raises, as an error of ours. Why it was refused it tells beside, and then only runs out of time."""
        from confluent_kafka import KafkaException

        self._refusals.clear()
        try:
            yield
        except KafkaException as cause:
            if "_admin" in self.__dict__:  # else it could not be made: then it has not told anything
                self._admin.poll(0)  # hands over what it has told beside
            error = cause.args[0]
            if self._refusals or error.name() in REFUSALS:
                why = (self._refusals or [error.str()])[-1]
                raise self._refused(why) from cause
            raise self._away(error.str()) from cause

    def _refused(self, why: str) -> MicrobatchError:
        return ConfigError(Problem(f"source {self.source}", f"the broker refuses: {why}; see options in conf"))

    def _away(self, why: str) -> MicrobatchError:
        return SourceUnavailable(self.source, why)


def _note(refusals: list[str], error: Any) -> None:
    if error.name() in REFUSALS:
        refusals.append(error.str())


Again = Callable[[Callable[[], Topic]], Topic]
