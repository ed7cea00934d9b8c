"""What is known of one request and its answer. Filled on the hot path, read by the background."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from adaptd.daemon.wire.events import Status, UnitKind
from adaptd.daemon.wire.routes import Choice, Route
from adaptd.serving.gateway.allowlist import Kind

UNKNOWN_MODEL = "-"  # refused before it could be read; no alias is called so
TIMEOUT_CODES = (408, 504)


@dataclass(slots=True)
class Exchange:
    """One request of an authenticated caller, from its first byte to the last of its answer.

    Bodies are kept as bytes and decoded after the answer: nothing here may delay one. Times are
    of the monotonic clock, in seconds, but for `arrived_at`.
    """

    id: str
    kind: Kind
    tenant: str
    gateway: str
    arrived_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.monotonic)
    client_request_id: str | None = None

    model: str = UNKNOWN_MODEL
    fields: dict[str, msgspec.Raw] | None = None
    conversation: str | None = None
    user: str | None = None
    tags: dict[str, str] | None = None
    unit: str | None = None
    unit_kind: UnitKind | None = None
    route: Route | None = None
    choice: Choice | None = None

    status_code: int | None = None
    streamed: bool = False
    answer: list[bytes] = field(default_factory=list)  # JSON documents: one, or a stream's chunks
    usage: bytes | None = None
    first_byte: float | None = None
    ended: float | None = None
    complete: bool = False  # the last byte of the answer was handed to the server
    disconnected: bool = False  # the client left before that
    failed: bool = False
    texts_dropped: bool = False
    texts_bytes: int = 0

    def note_answer(self, document: bytes) -> None:
        self.answer.append(document)
        self.texts_bytes += len(document)

    def drop_texts(self) -> None:
        """Leave out what was asked and answered; everything else stays."""
        self.fields = None
        self.answer = []
        self.texts_bytes = 0
        self.texts_dropped = True

    @property
    def status(self) -> Status:
        if self.disconnected:
            return "aborted"
        if self.status_code in TIMEOUT_CODES:
            return "timeout"
        if self.failed or not self.complete or (self.status_code or 500) >= 500:
            return "error"
        return "refused" if (self.status_code or 500) >= 400 else "ok"
