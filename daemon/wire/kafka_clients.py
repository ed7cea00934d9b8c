"""kafka-python's clients, without the open files that they leave behind.

kafka-python 3.0.12 leaves the socket of a failed connection, and all of a client that found no
broker, to the garbage collector, which runs seldom: 150 tries at an absent broker held up to 672
open files, where many systems allow 1,024. A contract test tells when that has changed.
"""

# kafka-python has no types.
# pyright: reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false

from collections.abc import Callable
from typing import Any, TypeVar

from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket
from kafka.net.transport import KafkaSSLTransport

T = TypeVar("T")
_Step = Callable[..., Any]  # of coroutines


def connect(make: Callable[..., T], *topics: str, **options: Any) -> T:
    """Make a KafkaProducer, KafkaConsumer or KafkaAdminClient; after an error nothing stays open.

    Raises:
        KafkaError, OSError, ValueError: as `make` does, for instance where no broker answers.
    """
    made: list[Any] = []

    def remembered(**config: Any) -> Any:
        made.append(KafkaNetClient(**config))
        return made[-1]

    try:
        return make(*topics, kafka_client=remembered, **options)
    except BaseException:
        for client in made:
            client.close()
        raise


def _close_on_failure(step: _Step, close: Callable[..., Any]) -> _Step:
    """Wrap `step` so that a failure calls `close` with the same arguments."""

    async def closing(*args: Any, **named: Any) -> Any:
        try:
            return await step(*args, **named)
        except BaseException:
            close(*args)
            raise

    return closing


def _close_socket(_self: Any, _net: Any, sock: Any, *_: Any) -> None:
    sock.close()


def _close_transport(transport: Any) -> None:
    transport._sock.close()  # noqa: SLF001 - `close` needs a protocol, which it lacks as yet


# Patched for all clients of the process: a retry in the background has no caller of adaptd's.
KafkaNetSocket.sock_connect = _close_on_failure(KafkaNetSocket.sock_connect, _close_socket)
KafkaSSLTransport.handshake = _close_on_failure(KafkaSSLTransport.handshake, _close_transport)
