"""kafka-python's clients, without the open files that they forget.

kafka-python 3.0.12 leaves the socket of a connection that failed, and all of a client that found no
broker, to the garbage collector, and ours looks seldom: 150 tries at a broker that is away held up
to 672 open files, where many systems allow 1,024. A contract test tells when that has changed.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket
from kafka.net.transport import KafkaSSLTransport

T = TypeVar("T")
_Step = Callable[..., Any]  # of coroutines


def connect(make: Callable[..., T], *topics: str, **options: Any) -> T:
    """A KafkaProducer, KafkaConsumer or KafkaAdminClient, or nothing that stays open.

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


def _closing(step: _Step, close: Callable[..., Any]) -> _Step:
    """`step`, and where it fails `close` of the same arguments."""

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
    transport._sock.close()  # noqa: SLF001 - `close` wants a protocol, which it has not yet


# For all clients of the process: a retry in the background has no caller of ours.
KafkaNetSocket.sock_connect = _closing(KafkaNetSocket.sock_connect, _close_socket)
KafkaSSLTransport.handshake = _closing(KafkaSSLTransport.handshake, _close_transport)
