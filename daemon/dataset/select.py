"""Which answers are learnt from: counted feedback, quarantined, capped, one for each prompt. Pure.

A correction counts by its text; an approved answer (rated above zero, never below, corrected by
nobody) counts as it was served. A thumb down alone never trains.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from adaptd.daemon.dataset.messages import RenderError, text_of
from adaptd.daemon.dataset.prompts import is_conversation, last_words, prompt_key
from adaptd.daemon.policy.model import Caps, Select
from adaptd.daemon.wire.feedback import RATING_WITHOUT_SCALE

Row = Mapping[str, Any]
_CORRECTION, _RATING = "correction", "rating"


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt and the answer it should have had. `author` is who said so, or his token.

    `last_words` is the normalised last message of the user: examples that share it form one group.
    `prompt` stands for the normalised conversation: those that share it are one example.
    """

    interaction: str
    feedback: str
    kind: str
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


class Selection(msgspec.Struct, frozen=True):
    """What is used, in the order of interactions, and how many were not, by reason."""

    examples: list[Example]
    refused: dict[str, int]


class _Refused(Exception):  # noqa: N818 - a reason, counted
    pass


def select_examples(rows: Iterable[Row], policy: Select, *, as_of: datetime) -> Selection:
    """Apply a policy to rows of `examples` (as_of already applied, `where` too).

    Caps come before equal prompts are settled: what one person may not add to the training set he
    may not take out of it either. The share is counted on what is left after that.
    """
    refused: Counter[str] = Counter()
    usable: list[Example] = []
    for row in rows:
        try:
            usable += _examples(row, policy, as_of, refused)
        except _Refused as reason:
            refused[str(reason)] += 1
    own = _newest(usable, key=lambda example: (example.author, example.prompt))
    capped = _capped(own, policy.caps)
    kept = _newest(capped, key=lambda example: example.prompt)
    refused["same_prompt"] += len(usable) - len(own) + len(capped) - len(kept)
    refused["over_cap"] += len(own) - len(capped)
    ordered = sorted(kept, key=lambda example: (example.interaction, example.feedback))
    return Selection(ordered, {reason: n for reason, n in sorted(refused.items()) if n})


def fair_cap(places: Sequence[int], share: float, *, most: int) -> int:
    """The most examples, up to `most`, one person may have: no more than `share` of what is kept.

    `places` has one number for each prompt: the lowest place it has in anybody's own list, newest
    first from 1. So many prompts are kept under a cap as lie within it, whoever settles them. That
    number never falls by what one person adds, so he cannot lower the cap of the others. With too
    few prompts for a share it is 1: one example is always allowed.
    """
    ordered = sorted(places)
    while most > 1 and most > share * bisect_right(ordered, most) + 1e-9:
        most -= 1
    return max(1, most)


def _examples(
    row: Row, policy: Select, as_of: datetime, refused: Counter[str]
) -> Iterable[Example]:
    """What each person said of an answer that may count, the older first."""
    request = _json(row["request"])
    if not isinstance(request, Mapping) or not is_conversation(request.get("messages")):
        raise _Refused("no_messages")
    if not isinstance(request.get("tools"), list | None):
        raise _Refused("no_messages")
    found: list[Example] = []
    for said, kind in _judged(row, policy, refused):
        try:
            if said["ingested_at"] > as_of - policy.caps.min_age:
                raise _Refused("too_young")
            answer = _corrected(said) if kind == _CORRECTION else _served(row)
            found.append(_example(row, request, said, kind=kind, answer=answer))
        except _Refused as reason:  # what one person said wrongly does not silence the others
            refused[str(reason)] += 1
    return found


def _example(row: Row, request: Mapping[str, Any], said: Row, *, kind: str, answer: str) -> Example:
    params = _of_type(_json(row["params"]), dict) or {}
    try:
        return Example(
            interaction=row["id"],
            feedback=said["feedback"],
            kind=kind,
            author=_author(row, said),
            conversation=row["conversation"],
            messages=request["messages"],
            tools=request.get("tools"),
            template_args=_of_type(request.get("chat_template_kwargs"), dict),
            reasoning_effort=_of_type(params.get("reasoning_effort"), str),
            answer=answer,
            asked_at=row["time"],
            said_at=said["effective_at"],
            last_words=last_words(request["messages"]),
            prompt=prompt_key(request["messages"], request.get("tools")),
        )
    except RenderError as error:
        raise _Refused("not_text") from error


def _judged(row: Row, policy: Select, refused: Counter[str]) -> list[tuple[Row, str]]:
    """The feedback that may decide, and its kind: everybody's corrections, or the last approval.

    A rating without a scale, of an older release, says nothing: the others decide.
    """
    corrections = [said for said in row["corrections"] if said["choice"] == 0]
    if corrections:
        if _CORRECTION not in policy.use:
            raise _Refused("not_in_use")
        return [(said, _CORRECTION) for said in corrections]
    ratings = [said for said in row["ratings"] if said["choice"] == 0]
    if not ratings or _RATING not in policy.use:
        raise _Refused("not_in_use")
    scaled = [said for said in ratings if not said["unscaled"]]
    if not scaled:
        raise _Refused(RATING_WITHOUT_SCALE)
    refused[RATING_WITHOUT_SCALE] += len(ratings) - len(scaled)
    ratings = scaled
    if any(said["value"] <= 0 for said in ratings):
        raise _Refused("not_approved")
    return [(ratings[-1], _RATING)]


def _author(row: Row, said: Row) -> str:
    """Whose cap it counts against: the user, else the token he came by, as in `examples`."""
    return said["user"] or f"token:{said['principal'] or row['tenant'] or ''}"


def _corrected(said: Row) -> str:
    message = {"content": said["text"]} if said["text"] is not None else _json(said["message"])
    return _answer_text(message)


def _served(row: Row) -> str:
    """The answer as served; a cut one would teach to stop too early."""
    choices = _json(row["choices"])
    choice = choices[0] if isinstance(choices, list) and choices else None
    if row["status"] != "ok" or not isinstance(choice, Mapping):
        raise _Refused("no_answer")
    if choice.get("finish_reason") not in ("stop", "tool_calls", None):
        raise _Refused("cut_answer")
    return _answer_text(choice.get("message"))


def _answer_text(message: Any) -> str:
    if not isinstance(message, Mapping):
        raise _Refused("no_answer")
    if message.get("tool_calls"):
        raise _Refused("tool_call_answer")
    try:
        text = text_of(message.get("content"))
    except RenderError as error:
        raise _Refused("not_text") from error
    if not text.strip():
        raise _Refused("empty_answer")
    return text


def _capped(examples: Sequence[Example], caps: Caps) -> list[Example]:
    """At most so many of one author, the newest first. `examples` come the oldest first.

    No author gives one prompt twice. The share is of what is left once equal prompts are settled.
    """
    by_author: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_author[example.author].append(example)
    places: dict[str, int] = {}
    for mine in by_author.values():
        for place, example in enumerate(reversed(mine), 1):
            places[example.prompt] = min(place, places.get(example.prompt, place))
    longest = max(map(len, by_author.values()), default=1)
    most = fair_cap(list(places.values()), caps.per_user_share, most=min(caps.per_user, longest))
    return [example for mine in by_author.values() for example in mine[-most:]]


def _newest(examples: Iterable[Example], *, key: Any) -> list[Example]:
    """The newest of each key, the oldest first."""
    found: dict[Any, Example] = {}
    for example in sorted(examples, key=lambda e: (e.said_at, e.feedback)):
        found.pop(key(example), None)
        found[key(example)] = example
    return list(found.values())


def _of_type(value: Any, kind: type) -> Any:
    return value if isinstance(value, kind) else None


def _json(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str) else value
