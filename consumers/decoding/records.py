"""Records as their source delivered them, each with the sender who vouches for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from adaptd.consumers.decoding.json_events import Kind, UnreadableError
from adaptd.daemon.domain.ingest import GATEWAY
from adaptd.daemon.wire.events import SIGNATURE_HEADER
from adaptd.daemon.wire.signing import is_signed

REFUSED_HEADER = "adaptd-refused-batch"  # on the record that replaces a batch: see batch_bounds


@dataclass(frozen=True, slots=True)
class Sender:
    """The one who vouches for a record, and so what the record may claim.

    `sources` and `models` None permit every source of feedback, every alias. `stamps_tenant` puts
    the sender's own tenant on its events, whatever they claim.
    """

    trusted: bool
    principal: str | None
    sources: frozenset[str] | None
    models: frozenset[str] | None = None
    stamps_tenant: bool = False
    tenant: str | None = None


SIGNED = Sender(trusted=True, principal=GATEWAY, sources=None)


class Record(NamedTuple):
    """One record of a source. `kind` is what its topic holds; None: either."""

    value: bytes | None
    topic: str
    partition: int
    position: int
    sender: Sender | UnreadableError  # UnreadableError: the source itself refuses it
    kind: Kind | None


class LogRecords:
    """Reads records of the log as aiokafka and kafka-python deliver them."""

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
            self._find_sender(record),
            self._kinds.get(record.topic),
        )

    def _find_sender(self, record: Any) -> Sender | UnreadableError:
        if not record.headers:
            return self._unsigned
        signature = next(
            (value for name, value in record.headers if name == SIGNATURE_HEADER), None
        )
        if signature is None:
            return _find_refusal(record) or self._unsigned
        if record.value is not None and is_signed(self._key, record.value, signature):
            return SIGNED
        # A wrong signature is never taken for none: no honest sender makes one.
        return UnreadableError("bad_signature", "it is not signed with this installation's secret")


def _find_refusal(record: Any) -> UnreadableError | None:
    """Return why the batch was refused that this record replaces; None: it replaces none."""
    for name, value in record.headers:
        if name == REFUSED_HEADER:
            return UnreadableError("unpacks_too_large", value.decode(errors="replace"))
    return None


def record_time(record: Any) -> datetime | None:
    """Return the broker's time of a record; None: it has none, or none that is possible."""
    if record.timestamp is None or record.timestamp < 0:
        return None
    try:
        return datetime.fromtimestamp(record.timestamp / 1000, UTC)
    except (OverflowError, ValueError, OSError):  # producers may claim any time
        return None
