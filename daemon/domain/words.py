"""Finds a person's identifier and ids in bytes: files, logs, unreadable events. Pure."""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import msgspec

from adaptd.daemon.wire.texts import NOT_DECODED

# One that has no end goes to the end of all: to look for others in it would take the square of its
# length, hours for a few 100 kB of escaped quotes.
_STRING = re.compile(rb'"((?:[^"\\]++|\\.)*+)(?:"|\\?\Z)', re.DOTALL)
_NAME_ENDS = re.compile(rb"\s*:")  # after a string that is a field's name
_LONGEST_BYTES = 2048  # of an id in JSON: 128 letters, each escaped
_TOKEN = re.compile(rb"[^\s\"'\\,;{}\[\]()<>=]{4,512}")  # what an id may look like


@dataclass(frozen=True)
class Matcher:
    """`identifier` is found as a word, `ids` as whole tokens; both however JSON writes them."""

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
        for match in _STRING.finditer(content):
            if self._means(match[1]) and not _NAME_ENDS.match(content, match.end()):
                yield match.span()

    def _means(self, quoted: bytes) -> bool:
        """Whether a string of JSON is one of the ids, or hides somebody behind escapes."""
        if b"\\" not in quoted:
            return quoted in self.ids
        text = _unquoted(quoted).encode(errors="replace")
        return text in self.ids or self.identifier.search(text) is not None


def matcher_of(ids: Collection[str], identifier: str) -> Matcher:
    """A word ends where no letter, digit or underscore follows: `ada` is not in `Canada`."""
    spellings = {identifier, json.dumps(identifier)[1:-1]}
    spellings |= {json.dumps(identifier, ensure_ascii=False)[1:-1]}
    options = b"|".join(re.escape(text.encode()) for text in sorted(spellings))
    pattern = re.compile(rb"(?<![0-9A-Za-z_])(?:%b)(?![0-9A-Za-z_])" % options)
    return Matcher(pattern, frozenset(word.encode() for word in ids))


def is_text(content: bytes) -> bool:
    """Whether words in some bytes can be found: not so in packed ones, or in other encodings."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in content


def json_strings(content: bytes) -> Iterator[str]:
    """Every string of a JSON text that may be an id, names of fields among them."""
    for match in _STRING.finditer(content):
        if len(match[1]) <= _LONGEST_BYTES:
            yield _unquoted(match[1])


def _unquoted(quoted: bytes) -> str:
    try:
        return msgspec.json.decode(b'"%b"' % quoted, type=str)
    except NOT_DECODED:
        return quoted.decode(errors="replace")
