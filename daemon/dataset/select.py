"""Selection of the answers to learn from: feedback past its quarantine, then curation. Pure.

A correction counts by its text. An approved answer, rated above zero, never below, and without a
correction, counts as it was served. A thumb down alone never trains.
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
from adaptd.daemon.wire.events import JudgingKind
from adaptd.daemon.wire.feedback import RATING_WITHOUT_SCALE

Row = Mapping[str, Any]


class Selection(msgspec.Struct, frozen=True):
    """Examples in the order of interactions, and the number left out, by reason."""

    examples: list[Example]
    refused: dict[str, int]


class _Refused(Exception):  # noqa: N818 - a reason, counted
    pass


def select_examples(
    rows: Iterable[Row], policy: Select, *, as_of: datetime, steps: Sequence[CurationStep] = STEPS
) -> Selection:
    """Apply a policy to rows of `examples` (as_of already applied, `where` too).

    1. Read what each person said of each answer; feedback younger than the quarantine waits.
    2. Run the steps of curation in order.
    3. Sort, so that the order of rows decides nothing.
    """
    refused: Counter[str] = Counter()
    usable: list[Example] = []
    for row in rows:
        try:
            usable += _read_row(row, policy, as_of, refused)
        except _Refused as reason:
            refused[str(reason)] += 1
    curated = curate(usable, policy, steps=steps)
    refused.update(curated.refused)
    ordered = sorted(curated.kept, key=lambda example: (example.interaction, example.feedback))
    return Selection(ordered, {reason: n for reason, n in sorted(refused.items()) if n})


def _read_row(
    row: Row, policy: Select, as_of: datetime, refused: Counter[str]
) -> Iterable[Example]:
    """Read an example for each person whose feedback may count, the older first."""
    request = _decode_json(row["request"])
    if not isinstance(request, Mapping) or not is_conversation(request.get("messages")):
        raise _Refused("no_messages")
    if not isinstance(request.get("tools"), list | None):
        raise _Refused("no_messages")
    found: list[Example] = []
    for said, kind in _find_judgements(row, policy, refused):
        try:
            if said["ingested_at"] > as_of - policy.caps.min_age:
                raise _Refused("too_young")
            answer = _read_correction(said) if kind == "correction" else _read_served(row)
            found.append(_make_example(row, request, said, kind=kind, answer=answer))
        except _Refused as reason:  # unusable feedback of one person does not silence the others
            refused[str(reason)] += 1
    return found


def _make_example(
    row: Row, request: Mapping[str, Any], said: Row, *, kind: JudgingKind, answer: str
) -> Example:
    params = _keep_type(_decode_json(row["params"]), dict) or {}
    try:
        return Example(
            interaction=row["id"],
            feedback=said["feedback"],
            kind=kind,
            author=_name_author(row, said),
            conversation=row["conversation"],
            messages=request["messages"],
            tools=request.get("tools"),
            template_args=_keep_type(request.get("chat_template_kwargs"), dict),
            reasoning_effort=_keep_type(params.get("reasoning_effort"), str),
            answer=answer,
            asked_at=row["time"],
            said_at=said["effective_at"],
            last_words=last_words(request["messages"]),
            prompt=prompt_key(request["messages"], request.get("tools")),
        )
    except RenderError as error:
        raise _Refused("not_text") from error


def _find_judgements(
    row: Row, policy: Select, refused: Counter[str]
) -> list[tuple[Row, JudgingKind]]:
    """Return the feedback that decides, and its kind: all corrections, or the last approval."""
    corrections = [said for said in row["corrections"] if said["choice"] == 0]
    if corrections:
        if "correction" not in policy.use:
            raise _Refused("not_in_use")
        return [(said, "correction") for said in corrections]
    ratings = [said for said in row["ratings"] if said["choice"] == 0]
    if not ratings or "rating" not in policy.use:
        raise _Refused("not_in_use")
    # A rating without a scale, of an older release, says nothing: the others decide.
    scaled = [said for said in ratings if not said["unscaled"]]
    if not scaled:
        raise _Refused(RATING_WITHOUT_SCALE)
    refused[RATING_WITHOUT_SCALE] += len(ratings) - len(scaled)
    ratings = scaled
    if any(said["value"] <= 0 for said in ratings):
        raise _Refused("not_approved")
    return [(ratings[-1], "rating")]


def _name_author(row: Row, said: Row) -> str:
    """Name the person whose cap counts: the user, else the token, as in `examples`."""
    return said["user"] or f"token:{said['principal'] or row['tenant'] or ''}"


def _read_correction(said: Row) -> str:
    message = (
        {"content": said["text"]} if said["text"] is not None else _decode_json(said["message"])
    )
    return _read_answer(message)


def _read_served(row: Row) -> str:
    """Read the answer as served."""
    choices = _decode_json(row["choices"])
    choice = choices[0] if isinstance(choices, list) and choices else None
    if row["status"] != "ok" or not isinstance(choice, Mapping):
        raise _Refused("no_answer")
    # A cut answer would teach to stop too early.
    if choice.get("finish_reason") not in ("stop", "tool_calls", None):
        raise _Refused("cut_answer")
    return _read_answer(choice.get("message"))


def _read_answer(message: Any) -> str:
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


def _keep_type(value: Any, kind: type) -> Any:
    return value if isinstance(value, kind) else None


def _decode_json(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str) else value
