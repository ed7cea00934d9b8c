"""Who gets in, and what an error looks like."""

from collections.abc import Iterator

import httpx
import pytest
from fastapi.routing import APIRoute

from adaptd.daemon.web.access import access_of, check_declared
from adaptd.daemon.web.api import make_api
from tests.support.daemon_world import ServedParts, token_for

# Who may call what: a change of rights changes this table.
SCOPES = """\
GET /healthz -
GET /metrics read
GET /readyz -
GET /v1/adapters read
GET /v1/adapters/{name} read
DELETE /v1/backup control
GET /v1/backup read
POST /v1/backup control
GET /v1/deadletters read
GET /v1/deadletters/by-reason operate
POST /v1/deadletters/redrive operate
GET /v1/deadletters/{letter_id:path} operate
GET /v1/erasures read
POST /v1/erasures control
POST /v1/erasures/lift control
GET /v1/erasures/{erasure_id} read
GET /v1/evaluations read
POST /v1/events events
GET /v1/gateways read
GET /v1/ingest read
POST /v1/ingest/imports/{digest} operate
GET /v1/ingest/replays read
POST /v1/ingest/replays operate
GET /v1/ingest/replays/{replay_id} read
POST /v1/ingest/replays/{replay_id}/cancel operate
POST /v1/ingest/{action} operate
GET /v1/openapi.json read
GET /v1/policies read
POST /v1/rollback operate
GET /v1/rollouts read
POST /v1/rollouts operate
GET /v1/rollouts/{rollout_id} read
POST /v1/rollouts/{rollout_id}/{action} operate
GET /v1/runs read
GET /v1/runs/{run_id} read
POST /v1/runs/{run_id}/cancel operate
GET /v1/status read
POST /v1/store/release operate
GET /v1/traffic read
"""
TABLE = SCOPES.splitlines()
OPEN_PATHS = {"/healthz", "/readyz"}


@pytest.fixture
def client(served: ServedParts) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def routes(served: ServedParts) -> list[tuple[str, str]]:
    """Every method and path there is."""
    found = []
    for route in make_api(served.parts.backend).routes:
        assert isinstance(route, APIRoute)
        path = route.path.replace("{action}", "pause")
        found += [(method, path.replace("{", "").replace("}", "")) for method in route.methods]
    return found


def test_without_a_token_nothing_is_open_but_the_two_probes(
    client: httpx.Client, served: ServedParts
) -> None:
    open_paths = set()
    for method, path in routes(served):
        answer = client.request(method, path)
        if answer.status_code != 401:
            open_paths.add(path)
    assert open_paths == OPEN_PATHS


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/v1/nothing", "/healthz/"])
def test_paths_that_do_not_exist_are_closed_too(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 401


@pytest.mark.parametrize(
    "header", ["Bearer wrong", "Basic abc", "Bearer", "bearer x y", "Bearer \xff"]
)
def test_a_wrong_token_is_refused(client: httpx.Client, header: str) -> None:
    answer = client.get("/v1/status", headers={"Authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["remedy"].startswith("Send Authorization")


def test_a_token_reaches_what_its_scope_allows_and_nothing_else(
    client: httpx.Client, served: ServedParts
) -> None:
    expected = {
        "read": {"read": 200, "operate": 403, "events": 403},
        "operate": {"read": 200, "operate": 409, "events": 403},
        "events": {"read": 403, "operate": 403, "events": 422},
        "chat": {"read": 403, "operate": 403, "events": 403},
    }
    for scope, wanted in expected.items():
        headers = bearer(token_for(served.settings, scope))
        body = {"model": "support", "reason": "x"}
        found = {
            "read": client.get("/v1/runs", headers=headers).status_code,
            "operate": client.post("/v1/rollback", headers=headers, json=body).status_code,
            "events": client.post("/v1/events", headers=headers, content=b"").status_code,
        }
        assert found == wanted, scope


def test_every_route_declares_the_scope_it_needs(served: ServedParts) -> None:
    found = []
    for route in make_api(served.parts.backend).routes:
        assert isinstance(route, APIRoute)
        scope = access_of(route).scope
        found += [f"{route.path} {method} {scope or '-'}" for method in route.methods]
    told = [" ".join((path, method, scope)) for method, path, scope in map(str.split, TABLE)]
    assert sorted(found) == sorted(told)


@pytest.mark.parametrize(
    ("method", "path", "scopes"),
    [
        ("GET", "/v1/deadletters/some/letter", {"operate", "control"}),
        ("GET", "/v1/deadletters/by-reason", {"operate", "control"}),
        ("GET", "/v1/deadletters", {"read", "operate", "control"}),
        ("DELETE", "/v1/backup", {"control"}),
        ("POST", "/v1/erasures/lift", {"control"}),
        ("GET", "/v1/backup", {"read", "operate", "control"}),
        ("GET", "/v1/nothing", {"read", "operate", "control"}),
        ("POST", "/v1/nothing", {"operate", "control"}),
        ("DELETE", "/v1/runs", {"operate", "control"}),
        ("POST", "/v1/events", {"events", "control"}),
        ("POST", "/v1/store/release", {"operate", "control"}),
    ],
)
def test_a_scope_is_enough_or_not(
    client: httpx.Client, served: ServedParts, method: str, path: str, scopes: set[str]
) -> None:
    for scope in ("read", "operate", "events", "chat", "feedback", "control"):
        headers = bearer(token_for(served.settings, scope))
        refused = client.request(method, path, headers=headers).status_code == 403
        assert refused == (scope not in scopes), scope


def test_a_route_without_a_declaration_is_refused_when_the_api_is_built(
    served: ServedParts,
) -> None:
    app = make_api(served.parts.backend)

    @app.get("/v1/forgotten")
    async def forgotten() -> None: ...

    with pytest.raises(TypeError, match=r"/v1/forgotten.*declares no access"):
        check_declared(app.routes)


def test_a_token_is_looked_at_before_a_body(client: httpx.Client) -> None:
    assert client.post("/v1/rollback", content=b"{not json").status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/rollback", {"model": "support"}, 422),
        ("POST", "/v1/rollback", {"model": "support", "reason": "x", "more": 1}, 422),
        ("POST", "/v1/rollback", {"model": "nobody", "reason": "x"}, 409),
        ("POST", "/v1/rollouts/r/explode", {"reason": "x"}, 422),
        ("GET", "/v1/runs?limit=0", None, 422),
        ("GET", "/v1/runs/none", None, 409),
        ("GET", "/v1/adapters/none", None, 409),
        ("GET", "/v1/rollouts/none", None, 409),
        ("GET", "/v1/deadletters/none", None, 409),
        ("POST", "/v1/ingest/resume", {"reason": "x"}, 409),
        ("GET", "/v1/nothing", None, 404),
        ("DELETE", "/v1/runs", None, 405),
    ],
)
def test_an_error_says_where_what_and_what_to_do(
    client: httpx.Client,
    served: ServedParts,
    method: str,
    path: str,
    body: dict[str, str] | None,
    status: int,
) -> None:
    answer = client.request(method, path, json=body, headers=bearer(served.control_token))
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert all(error[key] for key in ("kind", "where", "problem", "remedy"))


def test_the_api_describes_itself(client: httpx.Client, served: ServedParts) -> None:
    described = client.get("/v1/openapi.json", headers=bearer(served.control_token)).json()
    assert {"/v1/status", "/v1/events", "/v1/rollback"} <= set(described["paths"])
