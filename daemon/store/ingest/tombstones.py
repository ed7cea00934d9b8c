"""Keeps events of erased people out, however they come back: redelivered, replayed, imported.

A store without tombstones pays nothing. With some, the users, conversations and judged answers of
a chunk are hashed with the installation's key, each once, and joined with the tombstones. What is
barred leaves a dead letter without bytes, so that every event is still accounted for. So does a
dead letter that cannot be compared with them: only whole JSON tells its words apart.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
import pyarrow as pa

from adaptd.daemon.domain.ingest import Address, Decoded
from adaptd.daemon.domain.words import is_text, json_strings
from adaptd.daemon.store.database.database import Connection, Database, arrow, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.ingest.refused_rows import addresses
from adaptd.daemon.wire.texts import NOT_DECODED

BARRED = "erased"  # the reason of their dead letters
_SQL = statements("tombstones")
_DETAIL = "it is of a person who was erased"
_UNREAD = "kept without its bytes: nobody can look for erased people in it"
_MOST_WORDS = 2000  # of one letter; one with more is barred unread
_PLACE = ("source", "topic", "partition", "position", "batch_index")
_WHOSE = ("tenant", "user", "unit_kind", "unit", "conversation")
# Whether there are any, by store: erasures and sinks are different objects. None: ask.
_PRESENT: WeakKeyDictionary[Database, bool] = WeakKeyDictionary()


def utc_now() -> datetime:
    return datetime.now(UTC)


class Tombstones:
    """One sink's view of them. Used on the writer thread, inside the sink's transaction."""

    def __init__(
        self, database: Database, secret: str, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        """`secret`: hex, derived for erasures; see `pseudonym`."""
        self._database = database
        self._secret = secret
        self._clock = clock

    def part(self, cursor: Connection, decoded: Decoded) -> tuple[Decoded, frozenset[Address]]:
        """The chunk with what is barred as dead letters without bytes, and its addresses."""
        if not self._any(cursor):
            return decoded, frozenset()
        interactions, gone = self._rows(cursor, "barred_interactions", decoded.interactions, _WHOSE)
        feedback, said = self._rows(
            cursor, "barred_feedback", decoded.feedback, ("tenant", "user", "interaction")
        )
        letters = self._letters(cursor, decoded.dead_letters)
        buried = _not_buried(cursor, pa.concat_tables([gone.select(_PLACE), said.select(_PLACE)]))
        parted = Decoded(
            source=decoded.source,
            interactions=interactions,
            feedback=feedback,
            dead_letters=pa.concat_tables(
                [letters, pa.Table.from_pylist(list(map(_letter, buried)), schema=letters.schema)]
            ),
            spans=decoded.spans,
        )
        return parted, addresses(gone) | addresses(said)

    def _any(self, cursor: Connection) -> bool:
        if self._database not in _PRESENT:
            found = rows(cursor, _SQL["any_tombstones"], now=self._clock())
            _PRESENT[self._database] = found[0]["found"]
        return _PRESENT[self._database]

    def _rows(
        self, cursor: Connection, statement: str, table: pa.Table, columns: tuple[str, ...]
    ) -> tuple[pa.Table, pa.Table]:
        """Rows that may be stored, and rows that may not."""
        barred = np.zeros(table.num_rows, dtype=bool)
        if table.num_rows:
            row = pa.array(range(table.num_rows), pa.int64())
            cursor.register("chunk_rows", table.select(columns).append_column("row", row))
            try:
                found = arrow(cursor, _SQL[statement], secret=self._secret, now=self._clock())
            finally:
                cursor.unregister("chunk_rows")
            barred[found["row"].to_numpy()] = True
        return table.filter(pa.array(~barred)), table.filter(pa.array(barred))

    def _letters(self, cursor: Connection, letters: pa.Table) -> pa.Table:
        """They come with the bytes somebody sent: what may name an erased person loses them."""
        if letters.num_rows == 0:
            return letters
        listed = letters.to_pylist()
        words = [_words(row["bytes"]) for row in listed]
        asked = sorted({word for found in words for word in found or ()})
        values = {"words": asked, "secret": self._secret, "now": self._clock()}
        known = {row["word"] for row in rows(cursor, _SQL["barred_words"], **values)}
        kept = [_allowed(row, found, known) for row, found in zip(listed, words, strict=True)]
        return pa.Table.from_pylist(kept, schema=letters.schema)


def tombstones_changed(database: Database) -> None:
    """Let every sink of the store ask again whether there are any."""
    _PRESENT.pop(database, None)


def _words(content: bytes | None) -> set[str] | None:
    """The strings in some JSON; None: too many to look at."""
    found: set[str] = set()
    for word in json_strings(content or b""):
        found.add(word)
        if len(found) > _MOST_WORDS:
            return None
    return found


def _allowed(letter: dict[str, Any], words: set[str] | None, barred: set[str]) -> dict[str, Any]:
    """A letter as it may be stored. Without its sender nobody tries it again."""
    if letter["bytes"] is not None and not _is_json(letter["bytes"]):
        detail = f"{letter['detail']}; {_UNREAD}"  # that of such a letter quotes nothing of it
        return letter | {"detail": detail, "bytes": None, "sender": None}
    return _blank(letter) if words is None or words & barred else letter


def _is_json(content: bytes) -> bool:
    """Whether it is an object or a list. A string could hold another text, quoted."""
    if not is_text(content) or not content.lstrip().startswith((b"{", b"[")):
        return False
    try:
        msgspec.json.decode(content, type=msgspec.Raw)
    except NOT_DECODED:
        return False
    return True


def _blank(letter: dict[str, object]) -> dict[str, object]:
    return letter | {"reason": BARRED, "detail": _DETAIL, "bytes": None}


def _not_buried(cursor: Connection, barred: pa.Table) -> list[dict[str, object]]:
    """The addresses of rows that have no letter yet: a replay brings them each time."""
    if barred.num_rows == 0:
        return []
    cursor.register("chunk_rows", barred)
    try:
        return arrow(cursor, _SQL["not_buried"], reason=BARRED).to_pylist()
    finally:
        cursor.unregister("chunk_rows")


def _letter(address: dict[str, object]) -> dict[str, object]:
    return _blank(address | {"id": "/".join(str(part) for part in address.values())})
