"""Redriven dead letters: their bytes are decoded again, under the same sender as before."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from adaptd.consumers.decoding.decode import Record, Sender, decode
from adaptd.consumers.decoding.json_events import Kind
from adaptd.daemon.domain.dead_letters import (
    ERASED,
    DeadLetter,
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
    addresses_of,
)
from adaptd.daemon.domain.ports import EventSink, LetterBook

_STEP_LETTERS = 500
_STEP_BYTES = 8 << 20
_PLACE = HTTP_PARTITION  # letters are numbered in the source's own offset row


class Redriver:
    """Redrives letters step by step. Safe to repeat: an event stored before is a duplicate.

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
        """Redrive one step of the letters. Call again with the cursor as `after` until it is None.

        Raises:
            StoreError: the store cannot take the step. The letters are unchanged.
        """
        async with self._turn:
            letters, cursor = await self._book.waiting(
                choice, limit=_STEP_LETTERS, max_bytes=_STEP_BYTES
            )
            return await self._store_letters(letters) if letters else [], cursor

    async def _store_letters(self, letters: Sequence[DeadLetter]) -> list[Redriven]:
        await self._sink.pin(REDRIVE, {_PLACE: LogRange(None, 0, 0)})
        start = (await self._sink.offsets(REDRIVE))[_PLACE].next_offset
        senders = [self._find_sender(letter) for letter in letters]
        decoded = await asyncio.to_thread(self._decode_letters, letters, senders, start)
        empty = decoded.dead_letters.slice(0, 0)  # the letters themselves stay
        written = await self._sink.write(replace(decoded, dead_letters=empty))
        fates = _find_fates(decoded, written)
        results = [
            _make_result(letter, sender, fates.get(start + index, {}))
            for index, (letter, sender) in enumerate(zip(letters, senders, strict=True))
        ]
        again = [_letter_id(address) for address in written.unstorable | written.barred]
        await self._book.settle(results, dead_again=again)
        return results

    def _decode_letters(
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

    def _find_sender(self, letter: DeadLetter) -> Sender | str:
        """Return the sender who vouches for the letter, or the reason why there is none."""
        if letter.reason == "bad_signature":
            return "a signature is not kept: read the record again with `adaptd replay`"
        if letter.source.startswith("import:") and not (letter.topic or "").startswith("adaptd"):
            return "a line of another format: import the file again"
        if letter.sender is None:
            return "its sender was not kept: let it be sent again"
        sender = msgspec.json.decode(letter.sender, type=Sender)
        of_log = letter.source == KAFKA or letter.source.startswith("replay:")
        if of_log and not sender.trusted and sender.principal is None:
            return self._unsigned  # what the settings permit now, not then
        return sender


Fates = dict[int, tuple[str, str | None, str | None]]  # by batch index: result, reason, detail


def _find_fates(decoded: Decoded, written: Written) -> dict[int, Fates]:
    """Return the fate of every event, by position and batch index."""
    found: dict[int, Fates] = {}
    for table in (decoded.interactions, decoded.feedback):
        for address in addresses_of(table):
            fate = ("duplicate" if address in written.duplicates else "stored", None, None)
            if address in written.unstorable:
                detail = "the store takes one of its JSON fields for malformed"
                fate = ("dead", "unstorable", detail)
            elif address in written.barred:
                fate = ("dead", ERASED, "it is of a person who was erased")
            found.setdefault(address.position, {})[address.index] = fate
    letters = decoded.dead_letters
    reasons, details = letters["reason"].to_pylist(), letters["detail"].to_pylist()
    for address, reason, detail in zip(addresses_of(letters), reasons, details, strict=True):
        found.setdefault(address.position, {})[address.index] = ("dead", reason, detail)
    return found


def _letter_id(address: Address) -> str:
    """Return the id of the dead letter that the sink made of an event."""
    where = (REDRIVE, address.topic, address.partition, address.position, address.index)
    return "/".join(map(str, where))


def _make_result(letter: DeadLetter, sender: Sender | str, fates: Fates) -> Redriven:
    # A batch is dead where one of its events is. The others are stored all the same.
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
