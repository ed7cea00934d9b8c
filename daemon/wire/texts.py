"""Text that can be written as UTF-8. Pure.

A Python string may hold lone surrogates, halves of letters: JSON and YAML escape them (`\\ud800`),
and undecodable bytes of the system become such (`\\udcff`). UTF-8 has no code for them.
"""

# JSON of any kind.
# pyright: reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import msgspec

# Raised by msgspec for bytes that are no JSON of the type, hold no UTF-8, or nest too deep.
NOT_DECODED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_SURROGATE = re.compile("[\ud800-\udfff]")


def is_encodable(text: str) -> bool:
    """Say whether UTF-8 can hold the text."""
    return text.isascii() or _SURROGATE.search(text) is None


def encodable(text: str) -> str:
    """Replace each lone surrogate of a text by its code: `\\ud800`."""
    if is_encodable(text):
        return text
    return text.encode("utf-8", "backslashreplace").decode()


def unencodable_in(value: Any) -> str | None:
    """Return the first text or key that UTF-8 cannot hold, with codes; None where all fit."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str | PurePath):
            if not is_encodable(text := str(found)):
                return encodable(text)
        elif isinstance(found, Mapping):
            waiting += [*found.values(), *found.keys()]
        elif isinstance(found, Iterable) and not isinstance(found, bytes):
            waiting += list(found)
    return None


def encode_json(value: Any) -> bytes:
    """Encode as JSON what msgspec can encode. A lone surrogate becomes its code."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_replace_surrogates(msgspec.to_builtins(value)))


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {_replace_surrogates(key): _replace_surrogates(of) for key, of in value.items()}
    return [_replace_surrogates(each) for each in value] if isinstance(value, list) else value
