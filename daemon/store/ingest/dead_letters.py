"""Events that could not be stored: with their bytes, their origin and the reason."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import msgspec
import pyarrow as pa

from adaptd.daemon.domain.dead_letters import DeadLetter, LetterChoice, LetterCursor, Redriven
from adaptd.daemon.domain.ingest import REDRIVE
from adaptd.daemon.store.database.database import Connection, Database, registered, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.wire.clock import utc_now

_SQL = statements("dead_letters")
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_KEYS = pa.schema(
    [
        ("id", pa.string()),
        ("received_at", pa.timestamp("us", tz="UTC")),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
_DEAD = "dead"
_SKIPPED = "skipped"


class DeadLetterReason(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one reason. `letters` since the store was made; `kept` are here; `waiting` of them
    were not redriven.
    """

    reason: str
    letters: int
    kept: int
    waiting: int
    first_at: datetime | None
    last_at: datetime | None


class DeadLetterStore:
    """The LetterBook over DuckDB, and the letters that people are shown."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def by_reason(self) -> list[DeadLetterReason]:
        """Return the reasons, the most frequent first."""
        found = await self._database.read(
            lambda cursor: rows(cursor, _SQL["dead_letters_by_reason"])
        )
        return [DeadLetterReason(**row) for row in found]

    async def list(self, *, reason: str | None = None, limit: int = 50) -> list[DeadLetter]:
        """Return the newest letters, with sizes instead of bytes."""
        found = await self._database.read(
            lambda cursor: rows(cursor, _SQL["list_dead_letters"], reason=reason, limit=limit)
        )
        return [DeadLetter(**row) for row in found]

    async def show(self, letter_id: str) -> DeadLetter | None:
        """Return one letter with its bytes."""
        found = await self._database.read(
            lambda cursor: rows(cursor, _SQL["show_dead_letter"], id=letter_id)
        )
        return DeadLetter(**found[0]) if found else None

    async def waiting(
        self, choice: LetterChoice, *, limit: int, max_bytes: int
    ) -> tuple[Sequence[DeadLetter], LetterCursor | None]:
        """Return letters with their bytes, oldest first, less those redriven, and a cursor.

        The cursor says where to go on; None at the end.
        """
        after = choice.after or LetterCursor(received_at=_BEGINNING, id="", until=self._clock())
        values = {
            "until": after.until,
            "received_at": after.received_at,
            "id": after.id,
            "reason": choice.reason,
            "ids": choice.ids,
            "limit": limit,
        }

        def work(cursor: Connection) -> tuple[list[DeadLetter], LetterCursor | None]:
            found = rows(cursor, _SQL["waiting_letters"], **values)
            # Keys and sizes come first, so that no more bytes are read than fit.
            fitting = _take_fitting(found, max_bytes)
            letters = _load_letters(cursor, fitting)
            # Fewer than `limit`, and all of them fit: there are no more.
            if not fitting or (len(fitting) == len(found) and len(found) < limit):
                return letters, None
            last = fitting[-1]
            return letters, LetterCursor(
                received_at=last["received_at"], id=last["id"], until=after.until
            )

        return await self._database.read(work)

    async def settle(self, results: Sequence[Redriven], *, dead_again: Sequence[str]) -> None:
        """Store the results of redriving; drop the copies that the sink made of `dead_again`."""
        keys = [
            {
                "id": result.id,
                "received_at": result.received_at,
                "reason": result.reason if result.result == _DEAD else None,
                "detail": result.detail,
            }
            for result in results
            if result.result != _SKIPPED
        ]

        def work(cursor: Connection) -> None:
            _with_keys(cursor, keys, _SQL["mark_redriven"], now=self._clock())
            _with_keys(cursor, keys, _SQL["mark_dead_again"])
            if dead_again:
                copies = {"source": REDRIVE, "ids": list(dead_again)}
                cursor.execute(_SQL["uncount_copies"], copies)
                cursor.execute(_SQL["drop_copies"], copies)

        await self._database.write(work)

    async def unpublished(self, *, limit: int, max_bytes: int) -> Sequence[DeadLetter]:
        """Return letters that are not in Kafka's topic, with their bytes, oldest first."""

        def work(cursor: Connection) -> list[DeadLetter]:
            found = rows(cursor, _SQL["unpublished_letters"], limit=limit)
            return _load_letters(cursor, _take_fitting(found, max_bytes))

        return await self._database.read(work)

    async def mark_published(self, letters: Sequence[DeadLetter]) -> None:
        keys = [{"id": letter.id, "received_at": letter.received_at} for letter in letters]
        await self._database.write(
            lambda cursor: _with_keys(cursor, keys, _SQL["mark_published"], now=self._clock())
        )


def _take_fitting(found: list[dict[str, Any]], max_bytes: int) -> list[dict[str, Any]]:
    # At least one: a letter above the limit would otherwise never come.
    sums = accumulate(row["size_bytes"] for row in found)
    return [row for row, total in zip(found, sums, strict=True) if total <= max_bytes] or found[:1]


def _load_letters(cursor: Connection, keys: list[dict[str, Any]]) -> list[DeadLetter]:
    if not keys:
        return []
    return [DeadLetter(**row) for row in _with_keys(cursor, keys, _SQL["letters_of"])]


def _with_keys(
    cursor: Connection, keys: Sequence[dict[str, Any]], statement: str, **values: Any
) -> list[dict[str, Any]]:
    with registered(cursor, "letter_keys", pa.Table.from_pylist(list(keys), schema=_KEYS)):
        return rows(cursor, statement, **values)
