"""Which answers are learnt from: counted feedback, deduplicated and capped. Pure.

A correction counts by its text; an approved answer (rated above zero, never below, corrected by
nobody) counts as it was served. A thumb down alone never trains.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from daemon.policy.model import Select

_SPACE = re.compile(r"\s+")
Row = Mapping[str, Any]


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt and the answer it should have had. `author` is who said so, or his token."""

    interaction: str
    feedback: str
    kind: str
    author: str
    conversation: str | None
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    template_args: dict[str, Any] | None
    answer: str
    said_at: datetime

    @property
    def last_message(self) -> str:
        """The normalised last message: examples that share it form one group."""
        return normalised(text_of(self.messages[-1].get("content")))

    @property
    def prompt(self) -> str:
        """The normalised conversation: examples that share it are one example."""
        return normalised("\n".join(text_of(message.get("content")) for message in self.messages))


class Selection(msgspec.Struct, frozen=True):
    """What is used, in the order of interactions, and how many were not, by reason."""

    examples: list[Example]
    refused: dict[str, int]


class _Refused(Exception):  # noqa: N818 - a reason, counted
    pass


def select_examples(rows: Iterable[Row], policy: Select, *, as_of: datetime) -> Selection:
    """Apply a policy to rows of `examples` (as_of already applied, `where` too)."""
    refused: Counter[str] = Counter()
    usable: list[Example] = []
    for row in rows:
        try:
            usable.append(_example(row, policy, as_of))
        except _Refused as reason:
            refused[str(reason)] += 1
    kept = _newest_per_prompt(usable)
    refused["same_prompt"] += len(usable) - len(kept)
    capped = _capped(kept, policy)
    refused["over_cap"] += len(kept) - len(capped)
    ordered = sorted(capped, key=lambda example: (example.interaction, example.feedback))
    return Selection(ordered, {reason: n for reason, n in sorted(refused.items()) if n})


def normalised(text: str) -> str:
    """Casefolded, white space as single spaces."""
    return _SPACE.sub(" ", text.casefold()).strip()


def text_of(content: Any) -> str:
    """A message's text, parts joined by newlines; what is not text is left out here."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Sequence) else ()
    return "\n".join(str(p.get("text", "")) if isinstance(p, Mapping) else str(p) for p in parts)


def _example(row: Row, policy: Select, as_of: datetime) -> Example:
    request = _json(row["request"])
    if not isinstance(request, Mapping) or not request.get("messages"):
        raise _Refused("no_messages")
    feedback, kind, answer = _judged(row, policy, as_of)
    return Example(
        interaction=row["id"],
        feedback=feedback["feedback"],
        kind=kind,
        author=feedback["user"] or f"token:{feedback['principal']}",
        conversation=row["conversation"],
        messages=list(request["messages"]),
        tools=request.get("tools"),
        template_args=request.get("chat_template_kwargs"),
        answer=answer,
        said_at=feedback["effective_at"],
    )


def _judged(row: Row, policy: Select, as_of: datetime) -> tuple[Row, str, str]:
    """The feedback that decides, its kind, and the answer to learn."""
    ripe = as_of - policy.caps.min_age
    corrections = [c for c in row["corrections"] if c["choice"] == 0]
    if corrections:
        latest = corrections[-1]
        if "correction" not in policy.use:
            raise _Refused("not_in_use")
        if latest["effective_at"] > ripe:
            raise _Refused("too_young")
        return latest, "correction", _correction(latest)
    ratings = [r for r in row["ratings"] if r["choice"] == 0]
    if not ratings or "rating" not in policy.use:
        raise _Refused("not_in_use")
    if any(rating["value"] <= 0 for rating in ratings):
        raise _Refused("not_approved")
    if ratings[-1]["effective_at"] > ripe:
        raise _Refused("too_young")
    return ratings[-1], "rating", _served(row)


def _correction(feedback: Row) -> str:
    text = feedback["text"]
    if text is None:
        message = _json(feedback["message"]) or {}
        if message.get("tool_calls"):
            raise _Refused("tool_call_answer")
        text = text_of(message.get("content"))
    if not text.strip():
        raise _Refused("empty_answer")
    return text


def _served(row: Row) -> str:
    """The answer as served; a cut one would teach to stop too early."""
    choices = _json(row["choices"])
    if row["status"] != "ok" or not choices:
        raise _Refused("no_answer")
    choice = choices[0]
    message = choice.get("message") or {}
    if choice.get("finish_reason") != "stop":
        raise _Refused("cut_answer")
    if message.get("tool_calls"):
        raise _Refused("tool_call_answer")
    text = text_of(message.get("content"))
    if not text.strip():
        raise _Refused("empty_answer")
    return text


def _newest_per_prompt(examples: Iterable[Example]) -> list[Example]:
    """One example per conversation text; the newest word on it wins."""
    newest: dict[str, Example] = {}
    for example in sorted(examples, key=lambda e: (e.said_at, e.feedback)):
        newest[example.prompt] = example
    return list(newest.values())


def _capped(examples: Sequence[Example], policy: Select) -> list[Example]:
    """At most so many of one author, the newest first. The share is of all before capping."""
    most = min(policy.caps.per_user, max(1, int(policy.caps.per_user_share * len(examples))))
    used: Counter[str] = Counter()
    kept: list[Example] = []
    for example in sorted(examples, key=lambda e: (e.said_at, e.feedback), reverse=True):
        if used[example.author] < most:
            used[example.author] += 1
            kept.append(example)
    return kept


def _json(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str) else value
