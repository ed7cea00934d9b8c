"""Which answers are learnt from: counted feedback, quarantined, capped, one for each prompt. Pure.

A correction counts by its text; an approved answer (rated above zero, never below, corrected by
nobody) counts as it was served. A thumb down alone never trains.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from adaptd.daemon.dataset.curation import STEPS, curate
from adaptd.daemon.dataset.curation.step import CurationStep
from adaptd.daemon.dataset.example import Example
from adaptd.daemon.dataset.messages import RenderError, text_of
from adaptd.daemon.dataset.prompts import is_conversation, last_words, prompt_key
from adaptd.daemon.policy.model import Select
from adaptd.daemon.wire.feedback import RATING_WITHOUT_SCALE

Row = Mapping[str, Any]
_CORRECTION, _RATING = "correction", "rating"


class Selection(msgspec.Struct, frozen=True):
    """What is used, in the order of interactions, and how many were not, by reason."""

    examples: list[Example]
    refused: dict[str, int]


class _Refused(Exception):  # noqa: N818 - a reason, counted
    pass


def select_examples(
    rows: Iterable[Row], policy: Select, *, as_of: datetime, steps: Sequence[CurationStep] = STEPS
) -> Selection:
    """Apply a policy to rows of `examples` (as_of already applied, `where` too)."""
    refused: Counter[str] = Counter()
    usable: list[Example] = []
    for row in rows:
        try:
            usable += _examples(row, policy, as_of, refused)
        except _Refused as reason:
            refused[str(reason)] += 1
    curated = curate(usable, policy, steps=steps)
    refused.update(curated.refused)
    ordered = sorted(curated.kept, key=lambda example: (example.interaction, example.feedback))
    return Selection(ordered, {reason: n for reason, n in sorted(refused.items()) if n})


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


def _of_type(value: Any, kind: type) -> Any:
    return value if isinstance(value, kind) else None


def _json(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str) else value
