"""A message as its source delivered it, and who vouches for it."""

from dataclasses import dataclass
from typing import NamedTuple

from adaptd.consumers.decoding.json_events import Kind, UnreadableError
from adaptd.daemon.domain.ingest import GATEWAY


@dataclass(frozen=True, slots=True)
class Sender:
    """Who vouches for a record, and so what it may say.

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
    """`kind`: what its topic holds; None: either."""

    value: bytes | None
    topic: str
    partition: int
    position: int
    sender: Sender | UnreadableError  # UnreadableError: the source itself refuses it
    kind: Kind | None
