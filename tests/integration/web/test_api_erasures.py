"""Erasing over HTTP: who may, what is answered, and nothing in a path."""

from collections.abc import Iterator

import httpx
import pytest

from adaptd.daemon.erasure.service import ErasureService
from tests.support.daemon_world import ServedParts, token_for


@pytest.fixture
def client(served: ServedParts) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {served.control_token}"}
    with httpx.Client(base_url=served.url, headers=headers) as client:
        yield client


def test_only_the_control_token_may_erase(served: ServedParts, client: httpx.Client) -> None:
    token = token_for(served.settings, "read", "operate")
    asked = {"user": "ada", "reason": "asked"}
    headers = {"Authorization": f"Bearer {token}"}
    for path in ("/v1/erasures", "/v1/erasures/lift"):
        answer = httpx.post(f"{served.url}{path}", json=asked, headers=headers)
        assert (answer.status_code, "control" in answer.text) == (403, True)


def test_an_erasure_is_begun_followed_and_lifted(served: ServedParts, client: httpx.Client) -> None:
    asked = {"user": "ada", "reason": "asked"}
    begun = client.post("/v1/erasures", json=asked)
    assert (begun.status_code, begun.json()["state"]) == (202, "requested")
    assert "ada" not in begun.text

    erasures = served.parts.backend.erasures
    assert isinstance(erasures, ErasureService)
    served.run(erasures.tick())

    found = client.get(f"/v1/erasures/{begun.json()['erasure_id']}").json()
    assert found["state"] == "done"
    assert [erasure["state"] for erasure in client.get("/v1/erasures").json()] == ["done"]
    assert client.post("/v1/erasures/lift", json=asked).json() == {"lifted": 1}


def test_a_dry_run_and_wrong_requests_change_nothing(client: httpx.Client) -> None:
    before = client.get("/v1/erasures").json()
    asked = {"user": "eve", "reason": "asked", "dry_run": True}
    assert client.post("/v1/erasures", json=asked).json()["interactions"] == 0
    for wrong in ({"user": "eve"}, {"user": "", "reason": "x"}, asked | {"users": "eve"}):
        assert client.post("/v1/erasures", json=wrong).status_code == 422
    assert client.get("/v1/erasures/er-none").status_code in (404, 409)
    assert client.get("/v1/erasures").json() == before
