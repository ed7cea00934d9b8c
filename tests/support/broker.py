"""The tests' broker: the same one-node Kafka as the demo's, with what tests do to it."""

import os
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic

from adaptd.daemon.demo.broker import KafkaNode
from adaptd.daemon.wire.kafka_clients import connect
from tests.support.waiting import LIMIT_S

ROOT = Path(__file__).resolve().parents[2]
JARS = ROOT / "var" / "kafka" / "jars"  # kept between runs; git ignores it


class Broker:
    """A running broker. Blocking: from a coroutine use `asyncio.to_thread`, except `restart`,

    which must be called from the main thread (see KafkaNode).
    """

    def __init__(
        self, data: Path, node: KafkaNode | None = None, client: Mapping[str, Any] | None = None
    ) -> None:
        """`client`: what every client needs to be let in by a `node` with security."""
        self.node = node or KafkaNode(data, jars=JARS)
        self.client = dict(client or {})
        self.node.start()

    @property
    def bootstrap(self) -> str:
        return self.node.bootstrap

    def kill(self) -> None:
        """SIGKILL."""
        self.node.kill()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections, and says nothing."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Start again on the same ports and data, ending it first where it still runs."""
        self.node.restart()

    def stop(self) -> None:
        self.node.stop()

    def create_topic(self, name: str, *, partitions: int = 3, **config: str) -> str:
        """Make a topic (config keys with _ for .) and return its name."""
        settings = {key.replace("_", "."): value for key, value in config.items()}
        with_topic = NewTopic(name, partitions, 1, topic_configs=settings)
        admin = connect(KafkaAdminClient, bootstrap_servers=self.bootstrap, **self.client)
        try:
            admin.create_topics([with_topic])
        finally:
            admin.close()
        return name

    def send(
        self,
        topic: str,
        values: Iterable[bytes],
        *,
        key: bytes | None = None,
        compression: str | None = None,
        **headers: bytes,
    ) -> None:
        """Produce and wait for the broker's acknowledgement of every message."""
        producer = connect(
            KafkaProducer,
            bootstrap_servers=self.bootstrap,
            acks="all",
            linger_ms=5,
            compression_type=compression,
            **self.client,
        )
        try:
            pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
            sent = [producer.send(topic, value, key=key, headers=pairs) for value in values]
            for future in sent:
                future.get(timeout=LIMIT_S)
        finally:
            producer.close()

    def _signal(self, number: int) -> None:
        assert self.node.pid is not None, "it does not run"
        os.kill(self.node.pid, number)
