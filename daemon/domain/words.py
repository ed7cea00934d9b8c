"""Finds a person's identifier and ids in bytes: files, logs, unreadable events. Pure."""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

_TOKEN = re.compile(rb"[^\s\"'\\,;{}\[\]()<>=]{4,512}")  # what an id may look like


@dataclass(frozen=True)
class Matcher:
    """`identifier` is found as a word, also as JSON writes it; `ids` as whole tokens."""

    identifier: re.Pattern[bytes]
    ids: frozenset[bytes]

    def finds(self, content: bytes | None) -> bool:
        """Whether there is any of them."""
        return next(self.spans(content or b""), None) is not None

    def spans(self, content: bytes) -> Iterator[tuple[int, int]]:
        """Where they stand."""
        for match in self.identifier.finditer(content):
            yield match.span()
        if self.ids:
            for match in _TOKEN.finditer(content):
                if match[0] in self.ids:
                    yield match.span()


def matcher_of(ids: Collection[str], identifier: str) -> Matcher:
    """A word ends where no letter, digit or underscore follows: `ada` is not in `Canada`."""
    spellings = {identifier, json.dumps(identifier)[1:-1]}
    spellings |= {json.dumps(identifier, ensure_ascii=False)[1:-1]}
    options = b"|".join(re.escape(text.encode()) for text in sorted(spellings))
    pattern = re.compile(rb"(?<![0-9A-Za-z_])(?:%b)(?![0-9A-Za-z_])" % options)
    return Matcher(pattern, frozenset(word.encode() for word in ids))
