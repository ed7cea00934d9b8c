"""Events that could not be taken: with their bytes, where they came from and why."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import msgspec
import pyarrow as pa

from adaptd.daemon.domain.dead_letters import DeadLetter, LetterChoice, LetterCursor, Redriven
from adaptd.daemon.domain.ingest import REDRIVE
from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.ingest.sink import utc_now

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
    """`letters` since the store was made; `kept` are still here, `waiting` were not redriven."""

    reason: str
    letters: int
    kept: int
    waiting: int
    first_at: datetime | None
    last_at: datetime | None


class DeadLetterStore:
    """The LetterBook over DuckDB, and what surfaces show."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def by_reason(self) -> list[DeadLetterReason]:
        """The most frequent first."""
        found = await self._database.read(
            lambda cursor: rows(cursor, _SQL["dead_letters_by_reason"])
        )
        return [DeadLetterReason(**row) for row in found]

    async def list(self, *, reason: str | None = None, limit: int = 50) -> list[DeadLetter]:
        """The newest first, with sizes instead of bytes."""
        found = await self._database.read(
            lambda cursor: rows(cursor, _SQL["list_dead_letters"], reason=reason, limit=limit)
        )
        return [DeadLetter(**row) for row in found]

    async def show(self, letter_id: str) -> DeadLetter | None:
        """One with its bytes."""
        found = await self._database.read(
            lambda cursor: rows(cursor, _SQL["show_dead_letter"], id=letter_id)
        )
        return DeadLetter(**found[0]) if found else None

    async def waiting(
        self, choice: LetterChoice, *, limit: int, max_bytes: int
    ) -> tuple[Sequence[DeadLetter], LetterCursor | None]:
        """Letters with their bytes, oldest first, less those redriven; and where to go on."""
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
            fitting = _fitting(found, max_bytes)
            letters = _letters(cursor, fitting)
            if not fitting or (len(fitting) == len(found) and len(found) < limit):
                return letters, None
            last = fitting[-1]
            return letters, LetterCursor(
                received_at=last["received_at"], id=last["id"], until=after.until
            )

        return await self._database.read(work)

    async def settle(self, results: Sequence[Redriven], *, buried_again: Sequence[str]) -> None:
        """Keep what became of letters; drop the copies that the sink made of `buried_again`."""
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
            if buried_again:
                copies = {"source": REDRIVE, "ids": list(buried_again)}
                cursor.execute(_SQL["uncount_copies"], copies)
                cursor.execute(_SQL["drop_copies"], copies)

        await self._database.write(work)

    async def unpublished(self, *, limit: int, max_bytes: int) -> Sequence[DeadLetter]:
        """Those not in Kafka's topic, with their bytes, oldest first."""

        def work(cursor: Connection) -> list[DeadLetter]:
            found = rows(cursor, _SQL["unpublished_letters"], limit=limit)
            return _letters(cursor, _fitting(found, max_bytes))

        return await self._database.read(work)

    async def mark_published(self, letters: Sequence[DeadLetter]) -> None:
        keys = [{"id": letter.id, "received_at": letter.received_at} for letter in letters]
        await self._database.write(
            lambda cursor: _with_keys(cursor, keys, _SQL["mark_published"], now=self._clock())
        )


def _fitting(found: list[dict[str, Any]], max_bytes: int) -> list[dict[str, Any]]:
    """The first rows that are not too much together; one at least."""
    sums = accumulate(row["size_bytes"] for row in found)
    return [row for row, total in zip(found, sums, strict=True) if total <= max_bytes] or found[:1]


def _letters(cursor: Connection, keys: list[dict[str, Any]]) -> list[DeadLetter]:
    if not keys:
        return []
    return [DeadLetter(**row) for row in _with_keys(cursor, keys, _SQL["letters_of"])]


def _with_keys(
    cursor: Connection, keys: Sequence[dict[str, Any]], statement: str, **values: Any
) -> list[dict[str, Any]]:
    """Run a statement over `letter_keys`."""
    table = pa.Table.from_pylist(list(keys), schema=_KEYS)
    cursor.register("letter_keys", table)
    try:
        return rows(cursor, statement, **values)
    finally:
        cursor.unregister("letter_keys")
