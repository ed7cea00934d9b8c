"""Deliver events to a broker or to the daemon's HTTP door. Blocking; used from threads only."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import httpx
import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError

from adaptd.daemon.wire.errors import AdaptdError, SettingsError
from adaptd.daemon.wire.events import SIGNATURE_HEADER
from adaptd.daemon.wire.files import read_regular
from adaptd.daemon.wire.kafka import KafkaSecurity
from adaptd.daemon.wire.kafka_clients import connect
from adaptd.daemon.wire.signing import sign
from adaptd.daemon.wire.texts import NOT_DECODED


class DeliveryError(AdaptdError):
    """Not accepted now; the same events may be sent again."""


class EncodedEvent(msgspec.Struct, frozen=True):
    """One encoded event and its key: events of one key stay in order."""

    key: str
    value: bytes


class Delivery(Protocol):
    """A receiver of events."""

    def deliver(self, events: Sequence[EncodedEvent]) -> list[EncodedEvent]:
        """Send events and wait until they are accepted. Return those that never will be.

        Raises:
            DeliveryError: some were not accepted, for a reason that may pass; send all again.
        """
        ...

    def close(self) -> None: ...


class NoDelivery:
    """No receiver: the gateway's settings name neither broker nor daemon."""

    def deliver(self, events: Sequence[EncodedEvent]) -> list[EncodedEvent]:
        raise DeliveryError(
            "gateway",
            f"{len(events)} events have nowhere to go",
            "Set kafka_bootstrap or events_url",
        )

    def close(self) -> None:
        pass


class KafkaDelivery:
    """Sends signed events to one topic, acknowledged by every replica in sync, ordered by key."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        *,
        signing_key: bytes,
        name: str,
        limit_s: float,
        security: KafkaSecurity,
    ) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._signing_key = signing_key
        self._name = name
        self._limit_s = limit_s
        self._security = security
        self._producer: KafkaProducer | None = None

    def deliver(self, events: Sequence[EncodedEvent]) -> list[EncodedEvent]:
        try:
            sent = [(event, self._send_event(event)) for event in events]
            return [event for event, future in sent if not self._wait_until_taken(future)]
        except (KafkaError, OSError, SettingsError) as error:
            self.close()
            raise DeliveryError(
                f"kafka {self._bootstrap}",
                f"{self._topic} does not take events ({type(error).__name__})",
                "They are kept and sent again; check the broker and the topic",
            ) from error

    def close(self) -> None:
        """Close the connection; the next `deliver` makes a new one."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=1)

    def _connect_once(self) -> KafkaProducer:
        if self._producer is None:
            limit_ms = int(self._limit_s * 1000)
            options: dict[str, Any] = {
                "bootstrap_servers": self._bootstrap.split(","),
                "client_id": self._name,
                "acks": "all",
                "enable_idempotence": True,
                "allow_auto_create_topics": False,
                "linger_ms": 0,
                "retry_backoff_ms": 500,  # each retry at a missing topic logs an error line
                "metrics_enabled": False,
                "bootstrap_timeout_ms": limit_ms,
                "max_block_ms": limit_ms,
                "request_timeout_ms": max(1, limit_ms - 100),  # below the delivery's
                "delivery_timeout_ms": limit_ms,
                **self._security.client_options(),
            }
            self._producer = connect(KafkaProducer, **options)
        return self._producer

    def _send_event(self, event: EncodedEvent) -> Any:
        """Return a future of the event's offset; None where the client finds it too large."""
        signature = sign(self._signing_key, event.value).encode()
        try:
            return self._connect_once().send(
                self._topic,
                event.value,
                key=event.key.encode(),
                headers=[(SIGNATURE_HEADER, signature)],
            )
        except MessageSizeTooLargeError:
            return None

    def _wait_until_taken(self, future: Any) -> bool:
        """Wait for the broker's answer. False where the message is too large."""
        try:
            if future is not None:
                future.get(timeout=self._limit_s + 1)
        except MessageSizeTooLargeError:
            return False
        return future is not None


class _Result(msgspec.Struct, frozen=True):
    """The daemon's result for one event: stored, duplicate, or dead_letter with its reason."""

    result: Literal["stored", "duplicate", "dead_letter"]
    reason: str | None = None


class _Results(msgspec.Struct, frozen=True):
    results: list[_Result]


class HttpDelivery:
    """Sends NDJSON to the daemon. The control token proves there that a gateway sends."""

    def __init__(
        self,
        url: str,
        *,
        token_path: Path,
        limit_s: float,
        on_dead_letters: Callable[[Mapping[str, int]], None] = lambda _: None,
    ) -> None:
        """`on_dead_letters` gets the number of dead letters by reason; the daemon keeps them."""
        self._url = url
        self._token_path = token_path
        self._client = httpx.Client(timeout=limit_s, trust_env=False)
        self._on_dead_letters = on_dead_letters

    def deliver(self, events: Sequence[EncodedEvent]) -> list[EncodedEvent]:
        answer = self._post_events(events)
        if answer.is_success:
            self._check_results(answer.content, len(events))
            return []
        if answer.status_code not in (400, 413, 422):
            raise self._make_error(f"the daemon answered {answer.status_code}")
        # One event may be the cause of the others' refusal: halve until it is alone.
        if len(events) == 1:
            return list(events)
        middle = len(events) // 2
        return self.deliver(events[:middle]) + self.deliver(events[middle:])

    def close(self) -> None:
        self._client.close()

    def _check_results(self, content: bytes, events: int) -> None:
        """Report dead letters to `on_dead_letters`.

        Raises:
            DeliveryError: the answer lacks the result of an event.
        """
        try:
            results = msgspec.json.decode(content, type=_Results).results
        except NOT_DECODED as error:
            raise self._make_error("the answer is not a daemon's") from error
        if len(results) != events:
            raise self._make_error(f"the answer tells of {len(results)} events, not of {events}")
        dead = Counter(one.reason or "unknown" for one in results if one.result == "dead_letter")
        if dead:
            self._on_dead_letters(dead)

    def _post_events(self, events: Sequence[EncodedEvent]) -> httpx.Response:
        body = b"".join(event.value + b"\n" for event in events)
        try:
            token = read_regular(self._token_path).decode().strip()
            headers = {
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/x-ndjson",
            }
            return self._client.post(self._url, content=body, headers=headers)
        except (OSError, UnicodeError, httpx.HTTPError) as error:
            problem = f"the daemon does not take events ({type(error).__name__})"
            raise self._make_error(problem) from error

    def _make_error(self, problem: str) -> DeliveryError:
        return DeliveryError(self._url, problem, "They are kept and sent again")
