"""The event contract: events in Kafka and in POST /v1/events. See docs/events.md.

One JSON object an event, or `{"batch": [event, ...]}`. Times are RFC 3339 with an offset. Field
names are also the column names that policies use.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

INTERACTION_SCHEMA = "adaptd.interaction/1"
FEEDBACK_SCHEMA = "adaptd.feedback/1"
INTERACTIONS_TOPIC = "interactions.v1"
FEEDBACK_TOPIC = "feedback.v1"
DEAD_LETTERS_TOPIC = "dead-letters.v1"
MAX_BATCH = 10_000  # a 5 MB batch of `1,1,1…` would otherwise become 2.5 M dead letters
SIGNATURE_HEADER = "adaptd-signature"  # Kafka header: hex HMAC-SHA256 of the value, see signing.py

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
ChoiceIndex = Annotated[int, msgspec.Meta(ge=0, lt=1024)]  # of the answers to one request
AwareTime = Annotated[datetime, msgspec.Meta(tz=True)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Status = Literal["ok", "error", "timeout", "aborted", "refused"]
ArmName = Literal["live", "canary", "holdback", "shadow"]
UnitKind = Literal["conversation", "request", "user"]
Source = Literal["user", "agent", "reviewer", "system"]
FeedbackKind = Literal["rating", "correction", "preference", "label", "metric", "comment"]
JudgingKind = Literal["correction", "rating"]  # they judge an answer: trained on, watched by guards


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None


class Interaction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request and its answer, failed and aborted ones too.

    `adapter` None means that the base answered. `request` is as rendered: messages, prompt or
    input, tools, response format, template arguments. `choices` are full messages with finish
    reasons. `texts` is "dropped" where the gateway had to leave request and choices out.
    """

    schema: Literal["adaptd.interaction/1"] = INTERACTION_SCHEMA
    id: Id
    time: AwareTime
    model: Id
    tenant: Id | None = None
    adapter: Id | None = None
    unit: Id | None = None
    unit_kind: UnitKind | None = None
    conversation: Id | None = None
    user: Id | None = None
    client_request_id: Id | None = None
    request: dict[str, Any] | None = None
    choices: list[dict[str, Any]] | None = None
    base_digest: str | None = None
    template_digest: str | None = None
    arm: ArmName | None = None
    weight: Share | None = None
    rollout: Id | None = None
    gateway: Id | None = None
    status: Status = "ok"
    latency_ms: float | None = None
    ttft_ms: float | None = None
    usage: Usage | None = None
    params: dict[str, Any] | None = None
    tags: dict[str, str] | None = None
    texts: Literal["kept", "dropped"] = "kept"


class Feedback(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One judgement of one answer.

    rating: `value` -1 or 1, or a number with `scale` [min, max]. correction: `text` or a full
    `message`. preference: `chosen` and `rejected`. label, metric: `name` and `value`. comment:
    `text`.
    """

    schema: Literal["adaptd.feedback/1"] = FEEDBACK_SCHEMA
    id: Id
    time: AwareTime
    interaction: Id
    kind: FeedbackKind
    source: Source = "user"
    choice: ChoiceIndex = 0
    user: Id | None = None
    tenant: Id | None = None
    value: float | str | None = None
    scale: tuple[float, float] | None = None
    text: str | None = None
    message: dict[str, Any] | None = None
    chosen: str | None = None
    rejected: str | None = None
    name: str | None = None
    tags: dict[str, str] | None = None


def encode_event(event: Interaction | Feedback) -> bytes:
    """Encode an event as JSON with its schema, a default that msgspec leaves out."""
    return b'{"schema":"%b",%b' % (event.schema.encode(), msgspec.json.encode(event)[1:])
