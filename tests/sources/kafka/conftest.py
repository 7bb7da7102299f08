"""A real broker for the tests of this folder, and a job over a topic of its own."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_END, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from microbatch.testing import Bench
from tests.servers import kafka
from tests.servers.kafka import Broker

JOB = '''
"""Clicks, as they come."""

from microbatch import Append, Flow, Job, Source

CLICKS = Source("clicks", schema="{schema}")

JOB = Job(Flow("take", reads=CLICKS, writes=Append("bronze.clicks")))
'''
CONF = """
sources:
  clicks: {{kind: kafka, servers: "{servers}", topic: {topic}, format: {format}, {more}}}
retry: {{attempts: 0}}
"""


def needed(what: str, how: str) -> None:
    """Skip, or fail where all tests have to run."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}: {how}")
    pytest.skip(f"{what}: {how}")


@pytest.fixture(scope="session")
def jars() -> Path:
    """The jars of a broker."""
    if shutil.which("java") is None:
        needed("Java is missing", "`make setup` installs it")
    try:
        return kafka.jars()
    except kafka.JarsUnavailable as cause:
        needed(str(cause), "run the tests again where Maven's packages can be had")
        raise


@pytest.fixture(scope="session")
def broker(jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for all tests that do not kill it."""
    made = Broker(tmp_path_factory.mktemp("kafka"), jars)
    made.start()
    yield made
    made.kill()


class Topic:
    """A topic of one test's own."""

    def __init__(self, broker: Broker, partitions: int = 1, config: Mapping[str, str] = {}) -> None:
        self.broker, self.name = broker, f"clicks-{uuid.uuid4().hex[:8]}"
        self.admin = AdminClient({"bootstrap.servers": broker.servers, "log_level": 0})
        self.make(partitions, config)

    def make(self, partitions: int = 1, config: Mapping[str, str] = {}) -> None:
        self.admin.create_topics([NewTopic(self.name, partitions, 1, config=dict(config))])[self.name].result()

    def delete(self) -> None:
        self.admin.delete_topics([self.name])[self.name].result()
        self.admin.poll(0.3)

    def widen(self, partitions: int) -> None:
        self.admin.create_partitions([NewPartitions(self.name, partitions)])[self.name].result()

    def age_out(self) -> None:
        """What retention does to all there is: partition 0 begins at its end."""
        everything = TopicPartition(self.name, 0, OFFSET_END)
        self.admin.delete_records([everything])[everything].result()

    def send(self, *values: Any, partition: int = 0, key: bytes | None = None, timestamp_ms: int = 0) -> None:
        """Dicts as JSON, text and bytes as they are, None as a tombstone."""
        # A new one each time: one that is older than a partition does not know it.
        producer = Producer({"bootstrap.servers": self.broker.servers, "log_level": 0, "linger.ms": 0})
        for value in values:
            body = json.dumps(value).encode() if isinstance(value, dict) else value
            producer.produce(self.name, body, key, partition, timestamp=timestamp_ms)
        producer.flush()

    def transaction(self, *values: Any, commit: bool, partition: int = 0) -> None:
        producer = Producer(
            {"bootstrap.servers": self.broker.servers, "transactional.id": uuid.uuid4().hex, "log_level": 0}
        )
        producer.init_transactions(30)
        producer.begin_transaction()
        for value in values:
            producer.produce(self.name, json.dumps(value).encode(), partition=partition)
        producer.flush()
        (producer.commit_transaction if commit else producer.abort_transaction)(30)


class Clicks:
    """A bench with one flow that appends a topic to `bronze.clicks`."""

    def __init__(self, bench: Bench, topic: Topic, **conf: Any) -> None:
        self.bench, self.topic = bench, topic
        self.declare(**conf)

    def declare(
        self, schema: str = "id BIGINT, amount DECIMAL(6,2)", values: str = "json", more: str = "", servers: str = ""
    ) -> None:
        place = {"servers": servers or self.topic.broker.servers, "topic": self.topic.name, "format": values}
        self.bench.write("jobs/clicks.py", JOB.format(schema=schema))
        self.bench.write("conf/base/clicks.yml", CONF.format(more=more, **place))

    def run(self) -> list[Any]:
        return self.bench.run("clicks")

    def states(self) -> list[str]:
        return [flow.state for flow in self.bench.report("clicks").flows]

    def ids(self) -> list[int]:
        return sorted(row.id for row in self.bench.read("bronze.clicks").collect())

    def letters(self) -> list[tuple[str, str]]:
        """Payload and the first reason's message of each letter."""
        return sorted((row.payload, row.reasons[0].message) for row in self.bench.quarantine("clicks").collect())


@pytest.fixture
def topic(broker: Broker) -> Topic:
    return Topic(broker)


@pytest.fixture
def clicks(bench: Bench, topic: Topic) -> Callable[..., Clicks]:
    """`clicks(values="csv", more="metadata: true")`: a job over the test's topic."""
    return lambda **conf: Clicks(bench, topic, **conf)
