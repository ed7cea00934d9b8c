"""No file stays open after tries at an absent broker, even without garbage collection."""

import gc
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from adaptd.daemon.wire.kafka_clients import connect
from tests.support.waiting import LIMIT_S

TRY = {"bootstrap_timeout_ms": 150, "reconnect_backoff_ms": 10}
BARE = """
import gc, os, warnings
gc.disable()
from kafka import KafkaProducer
before = len(os.listdir("/proc/self/fd"))
try:
    KafkaProducer(bootstrap_servers="127.0.0.1:9", bootstrap_timeout_ms=150)
except Exception as error:
    print(len(os.listdir("/proc/self/fd")) - before)
"""


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def nonsense() -> Iterator[str]:
    """The address of a server that speaks neither Kafka nor TLS."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"220 hello\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{server.getsockname()[1]}"
    server.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=LIMIT_S)
    server.close()


@pytest.mark.parametrize("make", [KafkaProducer, KafkaConsumer, KafkaAdminClient])
@pytest.mark.parametrize("security", ["PLAINTEXT", "SSL"])
@pytest.mark.parametrize("answers", [False, True])
def test_a_client_that_finds_no_broker_leaves_nothing_open(
    make: type, security: str, answers: bool, nonsense: str
) -> None:
    tls = {"ssl_context": ssl.create_default_context()} if security == "SSL" else {}
    where = nonsense if answers else "127.0.0.1:9"
    gc.collect()
    gc.disable()
    try:
        before = open_files()
        for _ in range(3):
            with pytest.raises(KafkaError):
                connect(make, bootstrap_servers=where, security_protocol=security, **TRY, **tls)
        assert open_files() <= before
    finally:
        gc.enable()


def test_kafka_python_alone_still_leaves_files_open() -> None:
    """If this fails, kafka_clients is no longer needed: delete it."""
    found = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, check=True)

    assert int(found.stdout) >= 3
