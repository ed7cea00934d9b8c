"""One request and its answer: filled by the gateway on the hot path, read by capture afterwards.

Kept apart because both sides depend on it, and capture must not depend on the gateway.
"""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from adaptd.daemon.wire.events import Status, UnitKind
from adaptd.daemon.wire.routes import Choice, Route

UNKNOWN_MODEL = "-"  # of a request refused before its body was read; no alias has this name
TIMEOUT_CODES = (408, 504)

Fields = dict[str, msgspec.Raw]  # the top level of a JSON object; values stay encoded


class RequestKind(StrEnum):
    """The answering route that a request came by."""

    CHAT = "chat"
    COMPLETION = "completion"


@dataclass(slots=True)
class Exchange:
    """One request of an authenticated caller, from its first byte to the last of its answer.

    Bodies are kept as bytes and decoded after the answer: decoding here would delay it. Times are
    of the monotonic clock, in seconds, but for `arrived_at`.
    """

    id: str
    kind: RequestKind
    tenant: str
    gateway: str
    arrived_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.monotonic)
    client_request_id: str | None = None

    model: str = UNKNOWN_MODEL
    fields: Fields | None = None
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
        """Keep one JSON document of the answer, as the client gets it."""
        self.answer.append(document)
        self.texts_bytes += len(document)

    def drop_texts(self) -> None:
        """Leave out the request's and the answer's texts; everything else stays."""
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
