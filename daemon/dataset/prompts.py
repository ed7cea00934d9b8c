"""When two prompts are the same: normalised texts and keys over them. Pure.

Changing this changes which group a message belongs to, and with it what was held out for good.
"""

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from adaptd.daemon.dataset.messages import text_of


def normalised(text: str) -> str:
    """One form for texts that look alike: NFKC, casefolded, no invisible letters, single spaces."""
    visible = (c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    folded = unicodedata.normalize("NFKC", "".join(visible).casefold())
    return " ".join(folded.split())


def is_conversation(messages: Any) -> bool:
    """True for a list of messages with roles that is not empty."""
    return (
        isinstance(messages, list)
        and len(messages) > 0
        and all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages)
    )


def last_words(messages: Sequence[Mapping[str, Any]]) -> str:
    """The normalised last message of the user; of anybody where no user spoke.

    Raises:
        RenderError: it is not text.
    """
    of_user = [message for message in messages if message["role"] == "user"]
    return normalised(text_of((of_user or messages)[-1].get("content")))


def prompt_key(messages: Sequence[Mapping[str, Any]], tools: Any) -> str:
    """Equal for conversations whose normalised texts, tool calls and tools are equal.

    Raises:
        RenderError: a message is not text.
    """
    said = [
        (m["role"], normalised(text_of(m.get("content"))), m.get("tool_calls") or None)
        for m in messages
    ]
    content = msgspec.json.encode([said, tools or None], order="sorted")
    return hashlib.blake2b(content, digest_size=16).hexdigest()
