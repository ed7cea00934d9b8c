"""Equality of prompts: normalised texts and keys over them. Pure.

A change here changes the group of a message, and with it the holdout that was fixed for good.
"""

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from adaptd.daemon.dataset.messages import text_of


def normalised(text: str) -> str:
    """Return one form of texts that look alike: NFKC, casefolded, visible, single spaces."""
    # Cf: format characters, such as a zero-width space.
    visible = (c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    # Casefolding may leave NFKC, so it is applied again.
    folded = unicodedata.normalize("NFKC", "".join(visible).casefold())
    return " ".join(folded.split())


def is_conversation(messages: Any) -> bool:
    """Say whether a value is a list of messages with roles, and not empty."""
    return (
        isinstance(messages, list)
        and len(messages) > 0
        and all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages)
    )


def last_words(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the normalised last message of the user, or else of anybody.

    Raises:
        RenderError: the message is not text.
    """
    of_user = [message for message in messages if message["role"] == "user"]
    return normalised(text_of((of_user or messages)[-1].get("content")))


def prompt_key(messages: Sequence[Mapping[str, Any]], tools: Any) -> str:
    """Return a key that conversations with equal texts, tool calls and tools share.

    Raises:
        RenderError: a message is not text.
    """
    said = [
        (m["role"], normalised(text_of(m.get("content"))), m.get("tool_calls") or None)
        for m in messages
    ]
    content = msgspec.json.encode([said, tools or None], order="sorted")
    return hashlib.blake2b(content, digest_size=16).hexdigest()
