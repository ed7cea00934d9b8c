"""Finds a person's identifier and ids in bytes: files, logs, unreadable events. Pure."""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import msgspec

from adaptd.daemon.wire.texts import NOT_DECODED

# A string without an end reaches to the end of the bytes. Looking for others inside it would take
# the square of its length: hours for a few 100 kB of escaped quotes.
_STRING = re.compile(rb'"((?:[^"\\]++|\\.)*+)(?:"|\\?\Z)', re.DOTALL)
_NAME_ENDS = re.compile(rb"\s*:")  # follows a string that is a field's name
_LONGEST_BYTES = 2048  # of an id in JSON: 128 letters, each escaped
_TOKEN = re.compile(rb"[^\s\"'\\,;{}\[\]()<>=]{4,512}")  # anything that may be an id


@dataclass(frozen=True)
class Matcher:
    """Finds `identifier` as a word and `ids` as whole tokens, in every spelling of JSON."""

    identifier: re.Pattern[bytes]
    ids: frozenset[bytes]

    def finds(self, content: bytes | None) -> bool:
        """Say whether the content holds any of them."""
        return next(self.spans(content or b""), None) is not None

    def spans(self, content: bytes) -> Iterator[tuple[int, int]]:
        """Yield the start and end of each."""
        for match in self.identifier.finditer(content):
            yield match.span()
        if self.ids:
            for match in _TOKEN.finditer(content):
                if match[0] in self.ids:
                    yield match.span()
        for match in _STRING.finditer(content):
            if self._is_wanted(match[1]) and not _NAME_ENDS.match(content, match.end()):
                yield match.span()

    def _is_wanted(self, quoted: bytes) -> bool:
        """Say whether a JSON string is one of the ids, or the identifier behind escapes."""
        if b"\\" not in quoted:
            return quoted in self.ids
        text = _unquote_string(quoted).encode(errors="replace")
        return text in self.ids or self.identifier.search(text) is not None


def matcher_of(ids: Collection[str], identifier: str) -> Matcher:
    """Make a matcher for a person's identifier and ids."""
    spellings = {identifier, json.dumps(identifier)[1:-1]}
    spellings |= {json.dumps(identifier, ensure_ascii=False)[1:-1]}
    options = b"|".join(re.escape(text.encode()) for text in sorted(spellings))
    # A word ends where no letter, digit or underscore follows: `ada` is not in `Canada`.
    pattern = re.compile(rb"(?<![0-9A-Za-z_])(?:%b)(?![0-9A-Za-z_])" % options)
    return Matcher(pattern, frozenset(word.encode() for word in ids))


def is_text(content: bytes) -> bool:
    """Say whether words can be found in the bytes: not in packed ones, or in other encodings."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in content


def json_strings(content: bytes) -> Iterator[str]:
    """Yield every string of a JSON text that may be an id, names of fields among them."""
    for match in _STRING.finditer(content):
        if len(match[1]) <= _LONGEST_BYTES:
            yield _unquote_string(match[1])


def _unquote_string(quoted: bytes) -> str:
    try:
        return msgspec.json.decode(b'"%b"' % quoted, type=str)
    except NOT_DECODED:
        return quoted.decode(errors="replace")
