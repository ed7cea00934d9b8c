"""Bars events of erased people, by whatever way they return: redelivery, replay or import.

A store without tombstones pays nothing. With some, the users, conversations and judged answers of
a chunk are hashed with the installation's key, each once, and joined with the tombstones. A barred
event leaves a dead letter without bytes, so that every event is still accounted for. A dead letter
that cannot be compared loses its bytes too: only whole JSON tells its words apart.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa

from adaptd.daemon.domain.ingest import Address, Decoded
from adaptd.daemon.domain.words import is_text, json_strings
from adaptd.daemon.store.database.database import Connection, arrow, registered, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.ingest.split import addresses_of, split_by_statement
from adaptd.daemon.wire.clock import utc_now
from adaptd.daemon.wire.texts import NOT_DECODED

BARRED = "erased"  # the reason of their dead letters
_SQL = statements("tombstones")
_DETAIL = "it is of a person who was erased"
_UNREAD = "kept without its bytes: nobody can look for erased people in it"
_MOST_WORDS = 2000  # of one letter; one with more is barred unread
_PLACE = ("source", "topic", "partition", "position", "batch_index")
_WHOSE = ("tenant", "user", "unit_kind", "unit", "conversation")
_WHOSE_FEEDBACK = ("tenant", "user", "interaction")


class Tombstones:
    """The tombstones of a store, as its sink reads them: on the writer thread, in transactions."""

    def __init__(self, secret: str, *, clock: Callable[[], datetime] = utc_now) -> None:
        """`secret`: hex, derived for erasures; see `pseudonym`."""
        self._secret = secret
        self._clock = clock
        self._present: bool | None = None  # None: ask the store

    def note_change(self) -> None:
        """Have the next chunk ask the store again: there are more tombstones, or fewer."""
        self._present = None

    def bar(self, cursor: Connection, decoded: Decoded) -> tuple[Decoded, frozenset[Address]]:
        """Return the chunk with barred rows as dead letters without bytes, and their addresses."""
        if not self._has_any(cursor):
            return decoded, frozenset()
        gone, interactions = self._split_rows(
            cursor, "barred_interactions", decoded.interactions, _WHOSE
        )
        said, feedback = self._split_rows(
            cursor, "barred_feedback", decoded.feedback, _WHOSE_FEEDBACK
        )
        letters = self._blank_letters(cursor, decoded.dead_letters)
        without_letter = _find_without_letter(
            cursor, pa.concat_tables([gone.select(_PLACE), said.select(_PLACE)])
        )
        barred = pa.Table.from_pylist(
            [_make_letter(at) for at in without_letter], schema=letters.schema
        )
        rest = Decoded(
            source=decoded.source,
            interactions=interactions,
            feedback=feedback,
            dead_letters=pa.concat_tables([letters, barred]),
            spans=decoded.spans,
        )
        return rest, addresses_of(gone) | addresses_of(said)

    def _has_any(self, cursor: Connection) -> bool:
        if self._present is None:
            self._present = rows(cursor, _SQL["any_tombstones"], now=self._clock())[0]["found"]
        return bool(self._present)

    def _split_rows(
        self, cursor: Connection, statement: str, table: pa.Table, columns: tuple[str, ...]
    ) -> tuple[pa.Table, pa.Table]:
        values = {"secret": self._secret, "now": self._clock()}
        return split_by_statement(cursor, _SQL[statement], table, columns, **values)

    def _blank_letters(self, cursor: Connection, letters: pa.Table) -> pa.Table:
        """Take the bytes from letters that name an erased person, or may."""
        if letters.num_rows == 0:
            return letters
        listed = letters.to_pylist()
        words = [_list_words(row["bytes"]) for row in listed]
        asked = sorted({word for found in words for word in found or ()})
        values = {"words": asked, "secret": self._secret, "now": self._clock()}
        barred = {row["word"] for row in rows(cursor, _SQL["barred_words"], **values)}
        kept = [
            _blank_where_barred(row, found, barred)
            for row, found in zip(listed, words, strict=True)
        ]
        return pa.Table.from_pylist(kept, schema=letters.schema)


def _list_words(content: bytes | None) -> set[str] | None:
    """Return the strings in some JSON; None where they are too many to look at."""
    found: set[str] = set()
    for word in json_strings(content or b""):
        found.add(word)
        if len(found) > _MOST_WORDS:
            return None
    return found


def _blank_where_barred(
    letter: dict[str, Any], words: set[str] | None, barred: set[str]
) -> dict[str, Any]:
    if letter["bytes"] is not None and not _is_json_container(letter["bytes"]):
        # The detail of such a letter quotes nothing of it. Without a sender nobody redrives it.
        detail = f"{letter['detail']}; {_UNREAD}"
        return letter | {"detail": detail, "bytes": None, "sender": None}
    return _blank_letter(letter) if words is None or words & barred else letter


def _is_json_container(content: bytes) -> bool:
    """Say if the bytes are a JSON object or list: a string could hold another text, quoted."""
    if not is_text(content) or not content.lstrip().startswith((b"{", b"[")):
        return False
    try:
        msgspec.json.decode(content, type=msgspec.Raw)
    except NOT_DECODED:
        return False
    return True


def _blank_letter(letter: dict[str, object]) -> dict[str, object]:
    return letter | {"reason": BARRED, "detail": _DETAIL, "bytes": None}


def _find_without_letter(cursor: Connection, barred: pa.Table) -> list[dict[str, object]]:
    """Return the addresses of rows that have no letter yet: a replay brings them each time."""
    if barred.num_rows == 0:
        return []
    with registered(cursor, "chunk_rows", barred):
        return arrow(cursor, _SQL["not_buried"], reason=BARRED).to_pylist()


def _make_letter(address: dict[str, object]) -> dict[str, object]:
    return _blank_letter(address | {"id": "/".join(str(part) for part in address.values())})
