"""Every error of ours has its HTTP status; none shows a stack trace."""

import httpx
import pytest
from fastapi import FastAPI

from adaptd.consumers.kafka.topic_admin import BrokerAwayError
from adaptd.daemon.web.errors import add_error_handlers
from adaptd.daemon.wire.errors import (
    AdaptdError,
    BusyError,
    HaltError,
    HostError,
    MalformedError,
    PolicyError,
    RefusedError,
    StoreError,
    TooLargeError,
    TooSlowError,
    UnknownEncodingError,
)


@pytest.mark.parametrize(
    ("kind", "status", "word"),
    [
        (RefusedError, 409, "refused"),
        (TooLargeError, 413, "refused"),
        (PolicyError, 422, "policy"),
        (HostError, 502, "host"),
        (BusyError, 429, "busy"),
        (MalformedError, 400, "refused"),
        (TooSlowError, 408, "refused"),
        (UnknownEncodingError, 415, "refused"),
        (HaltError, 503, "halted"),
        (StoreError, 503, "store"),
        (BrokerAwayError, 503, "away"),
        (AdaptdError, 500, "internal"),
    ],
)
async def test_an_error_becomes_its_status_with_its_words(
    kind: type[AdaptdError], status: int, word: str
) -> None:
    app = FastAPI()
    add_error_handlers(app)

    @app.get("/")
    async def fail() -> None:
        raise kind("somewhere", "something is wrong", "Do this")

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://daemon") as client:
        answer = await client.get("/")
    assert answer.status_code == status
    assert answer.json()["error"] == {
        "kind": word,
        "where": "somewhere",
        "problem": "something is wrong",
        "remedy": "Do this",
    }
    assert ("retry-after" in answer.headers) is (status in (429, 503))
