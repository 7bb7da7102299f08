"""A real Kafka broker of this machine's own: one node, KRaft, out of the jars that Maven has."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from microbatch.jars import JarsUnavailable, resolve

PACKAGE = "org.apache.kafka:kafka_2.13:4.3.1"
START_S = 60
SETTINGS = """
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{plain},SIGNED://127.0.0.1:{signed},SAFE://127.0.0.1:{safe},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SIGNED://127.0.0.1:{signed},SAFE://127.0.0.1:{safe}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SIGNED:SASL_PLAINTEXT,SAFE:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.signed.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\
  user_shop="{password}";
listener.name.safe.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\
  user_shop="{password}";
listener.name.safe.ssl.keystore.type=PKCS12
listener.name.safe.ssl.keystore.location={folder}/keys.p12
listener.name.safe.ssl.keystore.password=changeit
log.dirs={folder}/data
log.retention.check.interval.ms=500
log.initial.task.delay.ms=100
log.segment.delete.delay.ms=100
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
num.partitions=1
"""
PASSWORD = "zebra's s3cret"  # of user shop, at the listener that asks for one


class Broker:
    """A broker in a folder; `start` again after `kill` brings back what it held.

    Attributes:
        servers: where it listens without a password.
        signed: where it wants one: SASL PLAIN, user shop.
        safe: the same over TLS.
        ca: the certificate that `safe` is to be known by, PEM.
    """

    def __init__(self, folder: Path, jars: Path) -> None:
        self.folder = folder
        plain, signed, safe, controller = _free_ports(4)
        self.servers, self.signed, self.safe = (f"127.0.0.1:{port}" for port in (plain, signed, safe))
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._settings = folder / "server.properties"
        ports: Mapping[str, int] = {"plain": plain, "signed": signed, "safe": safe, "controller": controller}
        self._settings.write_text(SETTINGS.format(folder=folder, password=PASSWORD, **ports))
        self.ca = _certificate(folder)
        self._java = ["java", "-Xmx384m", "-XX:+UseSerialGC", "-cp", _class_path(jars)]
        id_ = str(uuid.uuid4())
        words = ["format", "--standalone", "-t", id_, "-c", str(self._settings)]
        subprocess.run([*self._java, "kafka.tools.StorageTool", *words], check=True, capture_output=True, timeout=60)

    def start(self) -> None:
        """Start it, and wait until it answers, for each partition it holds: after a kill it knows those again last.

        Raises:
            RuntimeError: it did not come up.
        """
        with (self.folder / "broker.log").open("ab") as log:
            command = [*self._java, "kafka.Kafka", str(self._settings)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._process.poll() is None:
            if _answers(self.servers):
                return
            time.sleep(0.1)
        raise RuntimeError(f"the broker did not start; see {self.folder / 'broker.log'}")

    def kill(self) -> None:
        """SIGKILL, as a machine dies."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def jars() -> Path:
    """The broker's jars, fetched once into `.jars-kafka` of the working directory.

    Raises:
        JarsUnavailable: they cannot be fetched now.
    """
    folder = Path(os.environ.get("MICROBATCH_KAFKA_JARS", ".jars-kafka")).absolute()
    if not (folder / ".fetched").exists():
        shutil.rmtree(folder, ignore_errors=True)
        resolve(PACKAGE, folder)
        (folder / ".fetched").touch()
    return folder


def _certificate(folder: Path) -> Path:
    """A key for 127.0.0.1 in `keys.p12`, and its certificate as PEM; by the tool that comes with Java."""
    store = [
        "-keystore",
        str(folder / "keys.p12"),
        "-storetype",
        "PKCS12",
        "-storepass",
        "changeit",
        "-alias",
        "broker",
    ]
    made = ["-keyalg", "RSA", "-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1", "-ext", "bc:c=ca:true"]
    subprocess.run(["keytool", "-genkeypair", *store, *made], check=True, capture_output=True, timeout=60)
    ca = folder / "ca.pem"
    told = ["keytool", "-exportcert", "-rfc", *store, "-file", str(ca)]
    subprocess.run(told, check=True, capture_output=True, timeout=60)
    return ca


def _class_path(jars: Path) -> str:
    spec = find_spec("pyspark")
    assert spec is not None and spec.submodule_search_locations
    # The resolver leaves out what Spark has: of that the broker needs Scala's own library.
    scala = next(Path(spec.submodule_search_locations[0], "jars").glob("scala-library-*.jar"))
    return os.pathsep.join([f"{jars}/*", str(scala)])


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _answers(servers: str) -> bool:
    from confluent_kafka import KafkaException, TopicPartition
    from confluent_kafka.admin import AdminClient, OffsetSpec

    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    try:
        there = admin.list_topics(timeout=1)
        partitions = [
            TopicPartition(name, number) for name, topic in there.topics.items() for number in topic.partitions
        ]
        latest = admin.list_offsets(dict.fromkeys(partitions, OffsetSpec.latest())) if partitions else {}
        for future in latest.values():
            future.result(timeout=5)
    except (KafkaException, TimeoutError):
        return False
    return bool(there.brokers)


__all__ = ["PASSWORD", "Broker", "JarsUnavailable", "jars"]
