"""Feedback at POST /v1/feedback, answered only once the broker or the daemon has it."""

import asyncio
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from adaptd.daemon.wire.events import (
    AwareTime,
    ChoiceIndex,
    Feedback,
    FeedbackKind,
    Id,
    Source,
    encode_event,
)
from adaptd.daemon.wire.feedback import problem_with
from adaptd.daemon.wire.identity import own_name
from adaptd.daemon.wire.nesting import nests_deeper
from adaptd.daemon.wire.signing import belongs_to
from adaptd.daemon.wire.texts import NOT_DECODED
from adaptd.daemon.wire.tokens import Principal
from adaptd.serving.capture.delivery import Delivery, DeliveryError, EncodedEvent
from adaptd.serving.capture.interactions import MAX_DEPTH
from adaptd.serving.gateway.refusals import RefusalError, bad_request, not_permitted, not_ready
from adaptd.serving.gateway.request import Tags

MAX_ITEMS = 100
MAX_EVENT_BYTES = 512 << 10
PREFIXES = ("chatcmpl-", "cmpl-")  # some clients put one before an id
THREADS = 4
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)  # the store takes no earlier time


class ClientFeedback(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One piece of feedback as a client sends it. `id` makes a repeat safe."""

    interaction: Id
    kind: FeedbackKind
    id: Id | None = None
    source: Source | None = None
    choice: ChoiceIndex = 0
    user: Id | None = None
    value: float | str | None = None
    scale: tuple[float, float] | None = None
    text: str | None = None
    message: dict[str, Any] | None = None
    chosen: str | None = None
    rejected: str | None = None
    name: str | None = None
    tags: Tags | None = None
    time: AwareTime | None = None


def read_feedback(
    body: bytes, principal: Principal, *, ids_key: bytes, now: datetime
) -> list[Feedback]:
    """Read the events of a body: one piece of feedback or a list, all valid or none taken.

    Raises:
        RefusalError: 403 for a source the token may not claim, 404 for an interaction that is not
            the tenant's, 400 for feedback that breaks a rule of its kind.
    """
    try:
        found = msgspec.json.decode(body, type=ClientFeedback | list[ClientFeedback])
    except NOT_DECODED as error:
        raise bad_request(f"The feedback is not valid: {error}") from error
    given = found if isinstance(found, list) else [found]
    if not 0 < len(given) <= MAX_ITEMS:
        raise bad_request(f"Send 1 to {MAX_ITEMS} pieces of feedback at once.")
    return [_build_event(item, principal, ids_key=ids_key, now=now) for item in given]


def _build_event(
    given: ClientFeedback, principal: Principal, *, ids_key: bytes, now: datetime
) -> Feedback:
    interaction = given.interaction
    for prefix in PREFIXES:
        interaction = interaction.removeprefix(prefix)
    if not belongs_to(ids_key, interaction, principal.tenant):
        raise RefusalError(
            404,
            f"No answer of yours has the id `{given.interaction}`.",
            param="interaction",
            code="interaction_not_found",
        )
    fields = msgspec.structs.asdict(given) | {
        "interaction": interaction,
        "id": own_name(principal.tenant, given.id) if given.id else str(uuid.uuid4()),
        "source": _choose_source(given, principal),
        "tenant": principal.tenant,
        "user": given.user or f"token:{principal.id}",  # caps a person count by user
        "time": min(given.time or now, now),
    }
    feedback = Feedback(**fields)
    if (problem := problem_with(feedback)) is not None:
        raise _refuse_unusable(problem.detail, code=problem.reason)
    if nests_deeper(feedback.message, MAX_DEPTH):
        raise _refuse_unusable(
            f"the message nests in more than {MAX_DEPTH} levels", code="too_deep"
        )
    if feedback.time < _EARLIEST:
        raise _refuse_unusable("its time is before 1970", code="time_out_of_range")
    return feedback


def _refuse_unusable(problem: str, *, code: str) -> RefusalError:
    """Make a refusal. `code` is the reason of a dead letter with the same fault."""
    message = f"The feedback is not valid: {problem}."
    return RefusalError(400, message, param="kind", code=code)


def _choose_source(given: ClientFeedback, principal: Principal) -> str:
    """Choose the source that the sender gives; by default user, or the only one it may claim."""
    default = "user"
    if "user" not in principal.sources and len(principal.sources) == 1:
        (default,) = principal.sources
    source = given.source or default
    if source not in principal.sources:
        raise not_permitted(f"This API key may not send feedback with source `{source}`.")
    return source


class FeedbackService:
    """Takes feedback and delivers it before the answer. Delivery blocks, so it has threads."""

    def __init__(
        self,
        delivery: Callable[[], Delivery],
        *,
        ids_key: bytes,
        waiting: int,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """`delivery` makes one for each thread. Above `waiting` requests more are refused."""
        self._make_delivery = delivery
        self._ids_key = ids_key
        self._free = waiting
        self._log = log
        self._executor = ThreadPoolExecutor(THREADS, "adaptd-feedback")
        self._idle: list[Delivery] = []

    async def accept(self, body: bytes, principal: Principal) -> list[dict[str, str]]:
        """Take a body of feedback and return the ids it is stored under.

        Raises:
            RefusalError: see `read_feedback`; 503 where neither broker nor daemon took it. The same
                body may then be sent again; with the client's own ids it counts once.
        """
        if not principal.may("feedback"):
            raise not_permitted("This API key may not send feedback.")
        feedback = read_feedback(body, principal, ids_key=self._ids_key, now=datetime.now(UTC))
        events = [EncodedEvent(item.interaction, encode_event(item)) for item in feedback]
        if any(len(event.value) > MAX_EVENT_BYTES for event in events):
            raise RefusalError(413, f"A piece of feedback is larger than {MAX_EVENT_BYTES} bytes.")
        await self._deliver_in_thread(events)
        return [{"id": item.id, "interaction": item.interaction} for item in feedback]

    async def _deliver_in_thread(self, events: list[EncodedEvent]) -> None:
        if self._free <= 0:
            raise not_ready("Too much feedback is waiting. Send it again in a moment.")
        self._free -= 1
        try:
            loop = asyncio.get_running_loop()
            refused = await loop.run_in_executor(self._executor, self._deliver_now, events)
        except DeliveryError as error:
            self._log.warning("feedback_not_accepted", problem=str(error), events=len(events))
            raise not_ready(
                "The feedback cannot be stored now. Send it again in a moment."
            ) from error
        finally:
            self._free += 1
        if refused:
            raise RefusalError(413, "The broker takes no message as large as this feedback.")

    def _deliver_now(self, events: list[EncodedEvent]) -> list[EncodedEvent]:
        try:
            delivery = self._idle.pop()
        except IndexError:  # every delivery is in use
            delivery = self._make_delivery()
        try:
            return delivery.deliver(events)
        finally:
            self._idle.append(delivery)

    def close(self) -> None:
        """Wait for deliveries under way; each of their waits has a limit."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        while self._idle:
            self._idle.pop().close()
