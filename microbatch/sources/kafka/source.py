"""A Kafka topic as a stream.

Guarantee:
    Exactly once for each message the topic still holds: offsets are kept in the flow's checkpoint, and a batch that is run
    again reads between the same two. Messages of transactions count when they are committed; those that were taken back never.
    What is lost (offsets that aged out before they were read, a topic that was deleted or made anew, partitions that are gone)
    stops the flow before Spark is started. A partition that is added is read from its beginning. Of a topic that is compacted,
    what it dropped before it was read was never there.
    A message without a value (a tombstone) is a letter (json, csv), a row whose `value` is null (raw), or passed over
    (debezium, where the delete before it has said the same): then `rows_read` is smaller than the difference of the offsets.
What the server must allow:
    Describe and Read on the topic. No consumer group is joined and no offset committed.
What it costs the server:
    Four small requests a run, and one fetch where there seems to be something new; then one consumer for each partition.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from microbatch.errors import ConfigError, Problem, StateChanged
from microbatch.places import Place, write
from microbatch.sources.kafka.broker import Again, Broker, NoTopic, Offsets, Topic
from microbatch.sources.kafka.formats import Format
from microbatch.sources.kafka.options import POLL_MS, of_spark
from microbatch.sources.tables import numbered, offsets

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

EARLIEST = -2  # as Spark writes it
MARKS = 1_000  # offsets that may all be marks of transactions; where more are waiting, nobody looks for a message first


@dataclass(frozen=True)
class Pinned:
    """Where a checkpoint began: `<checkpoint>/microbatch/topic.json`, written by the first run that saw the topic."""

    id: str
    begins: Offsets


@dataclass(frozen=True)
class Kafka:
    """A topic, as one flow reads it.

    Attributes:
        schema: DDL of the rows.
        starting: earliest or latest; where a new checkpoint begins.
        max_rows: messages of a batch.
        again: calls what it is given until it works, or waiting is no use.
    """

    unit: ClassVar[str] = "message"

    name: str
    flow: str
    schema: str
    topic: str
    format: Format
    starting: str
    max_rows: int
    broker: Broker
    checkpoint: Place
    again: Again

    def fetch(self) -> None:
        """Hold fast where a new checkpoint begins: "latest" is when the first run looked, not when the first message came."""
        found = self.again(self._look)
        if self._pinned() is None:
            begins = found.end if self.starting == "latest" else found.first
            write(self._pin, json.dumps({"id": found.id, "begins": begins}))

    def pending(self) -> int:
        """Offsets behind those that a batch took in; some may be marks of transactions. 0: there is no message.

        Raises:
            SourceUnavailable: no broker answered.
            StateChanged: what is to be read next is gone, or the topic is another one.
            ConfigError: the brokers refuse, or there is no such topic.
        """
        found, pinned = self._look(), self._pinned()
        read, planned = self._positions(found, pinned)
        if pinned is not None:
            self._refuse_lost(found, pinned, read)
        rest = {p: end - planned.get(p, found.first[p]) for p, end in found.end.items()}
        waiting = {p: planned.get(p, found.first[p]) for p, count in rest.items() if count > 0}
        count = sum(rest.values())
        return count if count > MARKS or (waiting and self.broker.has_message(self.topic, waiting)) else 0

    def stream(self, spark: SparkSession) -> DataFrame:
        """The messages as they are."""
        begins = "earliest"  # a checkpoint that has offsets goes on from those
        pinned = self._pinned()
        if pinned is not None and not numbered(self.checkpoint / "offsets"):
            every = {**dict.fromkeys(self._look().first, EARLIEST), **pinned.begins}
            begins = self._json(every)
        reader = spark.readStream.format("kafka").options(**self._options(), startingOffsets=begins)
        return self._loaded(reader.option("maxOffsetsPerTrigger", self.max_rows).load)

    def rows(self, batch: DataFrame) -> DataFrame:
        """The rows of a micro-batch, see `formats`."""
        return self.format.rows(batch, self.schema)

    def sample(self, spark: SparkSession, most: int) -> DataFrame:
        """At most so many rows that would come next, else the newest there are."""
        found = self._look()
        _, planned = self._positions(found, self._pinned())
        begins = {p: planned.get(p, found.first[p]) for p in found.end}
        if all(begins[p] >= end for p, end in found.end.items()):
            begins = {p: max(found.first[p], end - most) for p, end in found.end.items()}
        ends = {p: min(end, begins[p] + most) for p, end in found.end.items()}
        reader = spark.read.format("kafka").options(
            **self._options(), startingOffsets=self._json(begins), endingOffsets=self._json(ends)
        )
        return self.rows(self._loaded(reader.load)).limit(most)

    def of_letters(self, texts: DataFrame, shape: StructType) -> DataFrame:
        """See `Input`."""
        return self.format.of_letters(texts, self.schema, shape)

    @property
    def _pin(self) -> Place:
        return self.checkpoint / "microbatch" / "topic.json"

    def _pinned(self) -> Pinned | None:
        if not self._pin.exists():
            return None
        known = json.loads(self._pin.read_text())
        return Pinned(known["id"], {int(partition): at for partition, at in known["begins"].items()})

    def _look(self) -> Topic:
        try:
            return self.broker.look(self.topic)
        except NoTopic as none:
            if self._pinned() is not None:
                raise self._lost("is gone") from none
            from difflib import get_close_matches  # only for who misspelt it

            near = get_close_matches(self.topic, none.there, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(none.there[:12]) or 'none'}"
            what = f"there is no topic {self.topic}{hint}, or these credentials do not see it"
            raise ConfigError(Problem(f"source {self.name}", what)) from none

    def _positions(self, found: Topic, pinned: Pinned | None) -> tuple[Offsets, Offsets]:
        """Up to where messages were taken in, and up to where a batch was planned that may have to be run again."""
        begins = pinned.begins if pinned else found.end if self.starting == "latest" else found.first
        planned, done = numbered(self.checkpoint / "offsets"), numbered(self.checkpoint / "commits")
        ends = {batch: self._offsets(batch) for batch in planned[-2:]}
        last = ends[planned[-1]] if planned else begins
        if planned and planned[-1] not in done:
            return (ends[planned[-2]] if len(planned) > 1 else begins), last
        return last, last

    def _offsets(self, batch_id: int) -> Offsets:
        return {int(p): at for p, at in json.loads(offsets(self.checkpoint, batch_id))[self.topic].items()}

    def _refuse_lost(self, found: Topic, pinned: Pinned, read: Offsets) -> None:
        if found.id != pinned.id:
            raise self._lost("was made anew since it was read")
        for partition, at in sorted(read.items()):
            if partition not in found.end:
                raise self._lost(f"has no partition {partition} any more")
            first, end = found.first[partition], found.end[partition]
            if first > at:
                gone = f"partition {partition} goes on at offset {at:,}, the oldest it still holds is {first:,}"
                raise self._lost(f"lost up to {first - at:,} messages before they were read: {gone}")
            if end < at:
                raise self._lost(f"ends at offset {end:,} of partition {partition}, and {at:,} was reached already")

    def _lost(self, what: str) -> StateChanged:
        remedy = "start anew with what it holds by `--accept checkpoint` (an Append doubles what it holds already)"
        return StateChanged(self.flow, f"topic {self.topic} {what}", remedy)

    def _json(self, at: Offsets) -> str:
        return json.dumps({self.topic: {str(partition): offset for partition, offset in at.items()}})

    def _options(self) -> dict[str, str]:
        return {
            "kafka.bootstrap.servers": self.broker.servers,
            "subscribe": self.topic,
            "failOnDataLoss": "true",
            "kafka.isolation.level": "read_committed",
            "kafkaConsumer.pollTimeoutMs": str(POLL_MS),
            **of_spark(self.broker.options),
        }

    def _loaded(self, load: object) -> DataFrame:
        try:
            return load()  # type: ignore[operator]  # a bound method of either reader
        except Exception as cause:
            if "find data source: kafka" not in str(cause):
                raise
            what = "Spark's jars for Kafka are missing; `make setup` fetches them, or `python -m microbatch.jars .jars`"
            raise ConfigError(Problem(".jars", what)) from cause
