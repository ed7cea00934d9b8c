"""`adaptd run` behind a long backlog: its memory stays under 1 GiB while it catches up."""

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from adaptd.daemon.wire.events import FEEDBACK_TOPIC, INTERACTION_SCHEMA, INTERACTIONS_TOPIC
from bench.machine import peak_mb
from tests.support.broker import Broker
from tests.support.daemon_world import DaemonProcess, running_daemon, settings_for
from tests.support.waiting import until_blocking

pytestmark = pytest.mark.timeout(300)

EVENTS = 400_000
EVENT_BYTES = 400
BATCH_BYTES = 1 << 20  # before compression, which makes a tenth of it
CODECS = ("lz4", "lz4", "gzip")  # one a partition
LIMIT_MIB = 1024
_OPENING = f'{{"schema":"{INTERACTION_SCHEMA}","id":"backlog-'
_REST = (
    '","time":"2026-11-22T12:00:00Z","model":"support","conversation":"c-%d",'
    '"request":{"messages":[{"role":"user","content":"My card has not arrived yet."}]},'
    '"choices":[{"message":{"role":"assistant","content":"card_arrival"}}],'
    '"tags":{"product":"cards","pad":"'
)
_CLOSING = '"}}'


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of its own, since the daemon's topics have fixed names."""
    running = Broker(tmp_path_factory.mktemp("kafka"))
    yield running
    running.stop()


def events(first: int, last: int) -> Iterator[bytes]:
    for number in range(first, last):
        text = f"{_OPENING}{number}{_REST % (number % 9973)}"
        yield f"{text:x<{EVENT_BYTES - len(_CLOSING)}}{_CLOSING}".encode()


async def load(bootstrap: str) -> None:
    """Send a third of the events to each partition, in batches of a producer's usual size."""
    share = EVENTS // len(CODECS)
    for partition, codec in enumerate(CODECS):
        last = EVENTS if partition == len(CODECS) - 1 else (partition + 1) * share
        producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            compression_type=codec,
            max_batch_size=BATCH_BYTES,
            max_request_size=BATCH_BYTES,
        )
        async with producer:
            batch, sent = producer.create_batch(), []
            for value in events(partition * share, last):
                if batch.append(key=None, value=value, timestamp=None) is None:
                    sent.append(
                        await producer.send_batch(batch, INTERACTIONS_TOPIC, partition=partition)
                    )
                    batch = producer.create_batch()
                    batch.append(key=None, value=value, timestamp=None)
            sent.append(await producer.send_batch(batch, INTERACTIONS_TOPIC, partition=partition))
            await asyncio.gather(*sent)


def peak_mib(daemon: DaemonProcess) -> float:
    """The peak memory of the process. The kernel keeps it, so no peak is missed."""
    assert daemon.process is not None
    return peak_mb(daemon.process.pid)


async def test_a_backlog_is_caught_up_with_in_less_than_a_gib(
    own_broker: Broker, tmp_path: Path, tiny_base: Path
) -> None:
    for topic in (INTERACTIONS_TOPIC, FEEDBACK_TOPIC):
        own_broker.create_topic(topic, partitions=len(CODECS))
    await load(own_broker.bootstrap)
    kafka = {"ADAPTD_KAFKA_BOOTSTRAP": own_broker.bootstrap, "ADAPTD_LOG_JSON": "true"}

    with running_daemon(settings_for(tmp_path, tiny_base), tmp_path / "log", **kafka) as daemon:
        began, began_mib = time.monotonic(), peak_mib(daemon)
        until_blocking(lambda: stored(daemon) >= EVENTS, within_s=150, every_s=0.5)
        took_s, peak = time.monotonic() - began, peak_mib(daemon)

        sys.stdout.write(f"caught up in {took_s:.1f} s: {began_mib:.0f} MiB, then {peak:.0f} MiB\n")
        assert stored(daemon) == EVENTS
        assert peak < LIMIT_MIB


def stored(daemon: DaemonProcess) -> int:
    return daemon.status()["events"]["interactions"]
