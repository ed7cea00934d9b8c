"""Dead letters of a person: found, told with where they stand in Kafka, and blanked."""

from collections.abc import Collection
from typing import Any

import msgspec

from adaptd.daemon.domain.words import Matcher, is_text, json_strings
from adaptd.daemon.store.database.database import Connection, rows
from adaptd.daemon.store.database.statements import statements

_SQL = statements("erasures")
_AT_ONCE = 1000
_PACKED = "unpacks_too_large"


class PersonLetters(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of dead letters: `named` hold the person, `unread` may, for nobody can look into them.

    `lost` counts redriven events of theirs whose letters the store no longer has.
    """

    named: list[int]
    unread: list[int]
    lost: int = 0

    @property
    def all(self) -> list[int]:
        return self.named + self.unread


def find_letters(cursor: Connection, erasure_id: str, matcher: Matcher) -> PersonLetters:
    """Those with bytes. What is theirs has to be in the work table."""
    redriven = {row["id"] for row in rows(cursor, _SQL["redriven_ids"], erasure_id=erasure_id)}
    named: list[int] = []
    unread: list[int] = []
    placed: set[str] = set()
    after = -1
    while batch := rows(cursor, _SQL["letters_with_bytes"], after=after, limit=_AT_ONCE):
        for row in batch:
            events = _events_of(row, redriven)
            placed |= events
            if row["reason"] == _PACKED or not is_text(row["bytes"]):
                unread.append(row["row"])
            elif events or matcher.finds(row["bytes"]) or matcher.finds(row["detail"].encode()):
                named.append(row["row"])
        after = batch[-1]["row"]
    return PersonLetters(named=named, unread=unread, lost=len(redriven - placed))


def told_of(cursor: Connection, letters: PersonLetters) -> dict[str, Any]:
    """For the report, before they are blanked: where they were sent, and where published."""
    published = rows(cursor, _SQL["published_letters"], rows=letters.all)[0]
    return {
        "dead_letters": len(letters.all),
        "letters": rows(cursor, _SQL["letter_ranges"], rows=letters.named),
        "unread_letters": rows(cursor, _SQL["letter_ranges"], rows=letters.unread),
        "published_letters": published if published["letters"] else None,
        "redriven_lost": letters.lost,
    }


def blank_letters(cursor: Connection, letters: PersonLetters) -> None:
    cursor.execute(_SQL["blank_letters"], {"rows": letters.all})


def _events_of(row: dict[str, Any], redriven: Collection[str]) -> set[str]:
    """Which redriven events came from a letter."""
    if row["redriven_at"] is None or not redriven:
        return set()
    return set(json_strings(row["bytes"])).intersection(redriven)
