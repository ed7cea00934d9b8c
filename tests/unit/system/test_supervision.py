"""Services beside each other: one that fails is started again, a halt ends them all."""

import asyncio
from contextlib import suppress

import pytest
import structlog
from pydantic import BaseModel, ValidationError

from adaptd.daemon.system.logs import hide_forbidden
from adaptd.daemon.system.supervision import Supervisor, describe, frames
from adaptd.daemon.wire.errors import HaltError, StoreError
from tests.support.waiting import until


async def test_a_service_that_fails_is_named_and_started_again() -> None:
    supervisor, starts = Supervisor(), 0

    async def work() -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise StoreError("store", "the disk is full", "Make room")
        await asyncio.Event().wait()

    task = asyncio.create_task(supervisor.keep_running("dataset", work))
    await until(
        lambda: (supervisor.problems().get("dataset") or "").startswith("StoreError"), within_s=5
    )
    assert "the disk is full" in str(supervisor.problems()["dataset"])
    await until(lambda: starts == 2, within_s=5)
    assert supervisor.problems() == {"dataset": None}
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_halt_is_not_started_again() -> None:
    async def work() -> None:
        raise HaltError("ingest", "a topic is gone", "Look at it")

    with pytest.raises(HaltError):
        await Supervisor().keep_running("consumer", work)


def test_an_error_that_quotes_what_it_was_given_is_told_by_its_kind_only() -> None:
    class Message(BaseModel):
        number: int

    with pytest.raises(ValidationError) as caught:
        Message.model_validate({"number": "my card number is 4111"})
    group = ExceptionGroup("several", [caught.value, OSError(28, "No space left")])
    assert "4111" not in describe(group)
    assert describe(group) == "ValidationError; OSError: [Errno 28] No space left"
    assert "4111" not in "".join(frames(caught.value))
    assert any("test_supervision.py" in frame for frame in frames(caught.value))


def test_fields_that_may_hold_a_prompt_never_reach_a_log() -> None:
    logger = structlog.get_logger()
    shown = hide_forbidden(logger, "info", {"event": "x", "messages": ["secret"], "text": "secret"})
    assert "secret" not in str(shown)
    assert shown["event"] == "x"
