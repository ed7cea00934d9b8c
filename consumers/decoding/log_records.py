"""What a record of the log is: who vouches for it, and when it was written."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from adaptd.consumers.decoding.decode import SIGNED, Record, Sender
from adaptd.consumers.decoding.json_events import Kind, UnreadableError
from adaptd.consumers.kafka.batch_bounds import REFUSED_HEADER
from adaptd.daemon.wire.events import SIGNATURE_HEADER
from adaptd.daemon.wire.signing import is_signed


class LogRecords:
    """Reads records as aiokafka and kafka-python deliver them."""

    def __init__(
        self, *, key: bytes, kinds: Mapping[str, Kind], unsigned_sources: frozenset[str]
    ) -> None:
        self._key = key
        self._kinds = kinds
        self._unsigned = Sender(trusted=False, principal=None, sources=unsigned_sources)

    def read(self, record: Any) -> Record:
        return Record(
            record.value,
            record.topic,
            record.partition,
            record.offset,
            self._sender(record),
            self._kinds.get(record.topic),
        )

    def _sender(self, record: Any) -> Sender | UnreadableError:
        """Signed by a gateway, unsigned, or signed wrongly, which nobody honest does."""
        if not record.headers:
            return self._unsigned
        signature = next(
            (value for name, value in record.headers if name == SIGNATURE_HEADER), None
        )
        if signature is None:
            return _refusal(record) or self._unsigned
        if record.value is not None and is_signed(self._key, record.value, signature):
            return SIGNED
        return UnreadableError("bad_signature", "it is not signed with this installation's secret")


def _refusal(record: Any) -> UnreadableError | None:
    """Of a batch that would have unpacked to too much: see batches.py."""
    for name, value in record.headers:
        if name == REFUSED_HEADER:
            return UnreadableError("unpacks_too_large", value.decode(errors="replace"))
    return None


def record_time(record: Any) -> datetime | None:
    if record.timestamp is None or record.timestamp < 0:
        return None
    try:
        return datetime.fromtimestamp(record.timestamp / 1000, UTC)
    except (OverflowError, ValueError, OSError):  # producers may claim any time
        return None
