"""Dead letters tried again: their bytes take the same way as at first, under the same sender."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import pyarrow as pa

from adaptd.consumers.decoding.decode import Record, Sender, decode
from adaptd.consumers.decoding.json_events import Kind
from adaptd.daemon.domain.dead_letters import (
    ERASED,
    DeadLetter,
    LetterBook,
    LetterChoice,
    LetterCursor,
    Redriven,
)
from adaptd.daemon.domain.ingest import (
    HTTP_PARTITION,
    KAFKA,
    REDRIVE,
    Address,
    Decoded,
    LogRange,
    Span,
    Written,
)
from adaptd.daemon.domain.ports import EventSink

_STEP_LETTERS = 500
_STEP_BYTES = 8 << 20
_PLACE = HTTP_PARTITION  # letters are numbered in the source's own offset row
_COLUMNS = ["topic", "partition", "position", "batch_index"]


class Redriver:
    """Redrives letters step by step. Safe to repeat: what was stored before is a duplicate.

    A letter that is dead again stays, with the new reason.
    """

    def __init__(
        self,
        sink: EventSink,
        book: LetterBook,
        *,
        kinds: Mapping[str, Kind],
        unsigned_sources: frozenset[str],
    ) -> None:
        self._sink = sink
        self._book = book
        self._kinds = kinds
        self._unsigned = Sender(trusted=False, principal=None, sources=unsigned_sources)
        self._turn = asyncio.Lock()

    async def redrive(self, choice: LetterChoice) -> tuple[list[Redriven], LetterCursor | None]:
        """One step of the letters chosen; call again with the cursor as `after` until it is None.

        Raises:
            StoreError: the store cannot take it; the letters are as they were.
        """
        async with self._turn:
            letters, cursor = await self._book.waiting(
                choice, limit=_STEP_LETTERS, max_bytes=_STEP_BYTES
            )
            return await self._store(letters) if letters else [], cursor

    async def _store(self, letters: Sequence[DeadLetter]) -> list[Redriven]:
        await self._sink.pin(REDRIVE, {_PLACE: LogRange(None, 0, 0)})
        start = (await self._sink.offsets(REDRIVE))[_PLACE].next_offset
        senders = [self._sender(letter) for letter in letters]
        decoded = await asyncio.to_thread(self._decode, letters, senders, start)
        empty = decoded.dead_letters.slice(0, 0)  # the letters themselves stay, as they are
        written = await self._sink.write(replace(decoded, dead_letters=empty))
        fates = _fates(decoded, written)
        results = [
            _result(letter, sender, fates.get(start + index, {}))
            for index, (letter, sender) in enumerate(zip(letters, senders, strict=True))
        ]
        again = [_letter_id(address) for address in written.unstorable | written.barred]
        await self._book.settle(results, buried_again=again)
        return results

    def _decode(
        self, letters: Sequence[DeadLetter], senders: Sequence[Sender | str], start: int
    ) -> Decoded:
        records = [
            Record(
                letter.bytes,
                _PLACE.topic,
                _PLACE.number,
                start + index,
                sender,
                self._kinds.get(letter.topic or ""),
            )
            for index, (letter, sender) in enumerate(zip(letters, senders, strict=True))
            if isinstance(sender, Sender)
        ]
        span = Span(_PLACE, start, start + len(letters))
        return decode(records, source=REDRIVE, spans=[span])

    def _sender(self, letter: DeadLetter) -> Sender | str:
        """Who vouches for it, or why nobody does."""
        if letter.reason == "bad_signature":
            return "a signature is not kept: read the record again with `adaptd replay`"
        if letter.source.startswith("import:") and not (letter.topic or "").startswith("adaptd"):
            return "a line of another format: import the file again"
        if letter.sender is None:
            return "its sender was not kept: let it be sent again"
        sender = msgspec.json.decode(letter.sender, type=Sender)
        of_log = letter.source == KAFKA or letter.source.startswith("replay:")
        if of_log and not sender.trusted and sender.principal is None:
            return self._unsigned  # as the settings permit now
        return sender


Fates = dict[int, tuple[str, str | None, str | None]]  # by batch index: result, reason, detail


def _fates(decoded: Decoded, written: Written) -> dict[int, Fates]:
    """What became of every event, by position."""
    found: dict[int, Fates] = {}
    for table in (decoded.interactions, decoded.feedback):
        for address in _addresses(table):
            fate = ("duplicate" if address in written.duplicates else "stored", None, None)
            if address in written.unstorable:
                detail = "the store takes one of its JSON fields for malformed"
                fate = ("dead", "unstorable", detail)
            elif address in written.barred:
                fate = ("dead", ERASED, "it is of a person who was erased")
            found.setdefault(address.position, {})[address.index] = fate
    letters = decoded.dead_letters
    told = zip(letters["reason"].to_pylist(), letters["detail"].to_pylist(), strict=True)
    for address, (reason, detail) in zip(_addresses(letters), told, strict=True):
        found.setdefault(address.position, {})[address.index] = ("dead", reason, detail)
    return found


def _letter_id(address: Address) -> str:
    """Of the copy that the sink buried."""
    where = (REDRIVE, address.topic, address.partition, address.position, address.index)
    return "/".join(map(str, where))


def _addresses(table: pa.Table) -> list[Address]:
    columns = (table[name].to_pylist() for name in _COLUMNS)
    return [Address(*values) for values in zip(*columns, strict=True)]


def _result(letter: DeadLetter, sender: Sender | str, fates: Fates) -> Redriven:
    """Of a batch: dead where one event of it is; the others are stored all the same."""
    result, reason, detail = "skipped", None, None
    if isinstance(sender, str):
        detail = sender
    else:
        dead = [fate for _, fate in sorted(fates.items()) if fate[0] == "dead"]
        stored = any(fate[0] == "stored" for fate in fates.values())
        result, reason, detail = (*dead, ("stored" if stored else "duplicate", None, None))[0]
    return Redriven(
        id=letter.id,
        received_at=letter.received_at,
        result=result,
        reason=reason,
        detail=detail,
    )
