"""One example that a run may learn from.

It stands alone because reading, curation, grouping and rendering all take it.
"""

from datetime import datetime
from typing import Any

import msgspec

from adaptd.daemon.wire.events import JudgingKind


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt and the answer it should have had. `author` is the person, or else their token.

    `last_words` is the normalised last message of the user: examples that share it form one group.
    `prompt` stands for the normalised conversation: those that share it are one example.
    """

    interaction: str
    feedback: str
    kind: JudgingKind
    author: str
    conversation: str | None
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    template_args: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    answer: str
    asked_at: datetime
    said_at: datetime
    last_words: str
    prompt: str
