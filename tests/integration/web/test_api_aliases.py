"""A token limited to aliases: every route refuses it, or answers with what is theirs alone."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi.routing import APIRoute

from adaptd.daemon.domain.rollouts import Rollout
from adaptd.daemon.domain.states import AdapterState, RunState, Verdict
from adaptd.daemon.store.lifecycle.adapters import AdapterStore, Origin
from adaptd.daemon.store.lifecycle.evaluations import Evaluation, EvaluationStore, Outcome
from adaptd.daemon.store.lifecycle.rollouts import RolloutStore
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.web.access import AliasSource, Named, Owner, Reach, access_of
from adaptd.daemon.web.api import make_api
from adaptd.daemon.wire.errors import RefusedError
from adaptd.daemon.wire.tokens import create_token
from tests.support.daemon_world import POLICY, ServedParts, settings_for

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SCOPES = ("read", "operate", "events")
REASON = {"reason": "a test"}
TO_EVALUATING = (RunState.BUILDING, RunState.TRAINING, RunState.TRAINED, RunState.EVALUATING)


class Theirs(NamedTuple):
    """What belongs to one alias."""

    model: str
    run: str
    rollout: str
    adapter: str


class Call(NamedTuple):
    """One route, with what it declares of aliases."""

    method: str
    path: str
    alias: AliasSource


async def fill(served: ServedParts, model: str) -> Theirs:
    """A run with an evaluated version, and a rollout."""
    runs, adapters = RunStore(served.database), AdapterStore(served.database)
    run = await runs.create(
        model, policy_version=1, trigger={}, start_from=None, actor="test", now=NOW
    )
    origin = Origin(content_hash=f"{len(model):x}" * 64, base_digest="base", run_id=run.run_id)
    version = await adapters.add(model, origin, folder=Path("adapters"), actor="test", now=NOW)
    for state in TO_EVALUATING:
        await runs.move(run.run_id, state, actor="test", reason="a test", now=NOW)
    await EvaluationStore(served.database).settle(
        Outcome(
            run_id=run.run_id,
            run_to=RunState.REJECTED,
            adapter=version.name,
            adapter_to=AdapterState.RETIRED,
            reason="worse",
        ),
        an_evaluation(run.run_id, model, version.name),
        actor="test",
        now=NOW,
    )
    rollout = Rollout(model=model, candidate=version.name, policy_version=1, created_at=NOW)
    await RolloutStore(served.database).create(rollout, actor="test", reason="a test")
    return Theirs(model, run.run_id, rollout.rollout_id, version.name)


def an_evaluation(run_id: str, model: str, candidate: str) -> Evaluation:
    return Evaluation(
        evaluation_id=f"evaluation-{model}",
        run_id=run_id,
        model=model,
        candidate=candidate,
        live=None,
        holdout_version=1,
        k=1,
        alpha=0.01,
        verdict=Verdict.FAILED,
        report={"reason": "worse", "findings": []},
        policy_version=1,
        created_at=NOW,
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[ServedParts]:
    settings = settings_for(tmp_path_factory.mktemp("api"), tiny_base)
    (settings.policies_dir / "other.yaml").write_text(POLICY.replace("support", "other"))
    with ServedParts(settings) as parts:
        yield parts


@pytest.fixture(scope="module")
def support(served: ServedParts) -> Theirs:
    return served.run(fill(served, "support"))


@pytest.fixture(scope="module")
def other(served: ServedParts) -> Theirs:
    return served.run(fill(served, "other"))


@pytest.fixture
def limited(served: ServedParts) -> Iterator[httpx.Client]:
    """Somebody whose token is for the alias `other` alone."""
    token, _ = create_token(
        served.settings.tokens_path, tenant="desk", scopes=SCOPES, models=("other",)
    )
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=served.url, headers=headers) as client:
        yield client


def calls(served: ServedParts) -> list[Call]:
    found = []
    for route in make_api(served.parts.backend).routes:
        assert isinstance(route, APIRoute)
        access = access_of(route)
        if access.scope != "control":
            found += [Call(method, route.path, access.alias) for method in route.methods]
    return found


def ask(client: httpx.Client, call: Call, theirs: Theirs) -> httpx.Response:
    """Call a route about what is somebody's, named where the route reads it."""
    assert isinstance(call.alias, Named | Owner)
    value = theirs.model if isinstance(call.alias, Named) else getattr(theirs, call.alias.kind)
    place, _, field = call.alias.argument.rpartition(".")
    in_path = f"{{{field}}}" in call.path
    path = call.path.replace(f"{{{field}}}", value).replace("{action}", "pause")
    body: dict[str, Any] | None = None
    if call.method == "POST":
        body = ({field: value} if place else {}) | ({} if path == "/v1/rollouts" else REASON)
    query = {} if place or in_path else {field: value}
    return client.request(call.method, path, params=query, json=body)


def names_an_alias(call: Call) -> bool:
    return isinstance(call.alias, Named | Owner)


def test_what_belongs_to_another_alias_is_refused_on_every_route(
    served: ServedParts, limited: httpx.Client, support: Theirs
) -> None:
    asked = [call for call in calls(served) if names_an_alias(call)]
    assert len(asked) >= 12
    for call in asked:
        answer = ask(limited, call, support)
        assert answer.status_code == 403, (call, answer.text)
        error = answer.json()["error"]
        assert "limited to the aliases other" in error["problem"]
        assert error["remedy"]


def test_what_belongs_to_the_tokens_alias_is_answered_on_every_route(
    served: ServedParts, limited: httpx.Client, other: Theirs
) -> None:
    for call in calls(served):
        if names_an_alias(call):
            assert ask(limited, call, other).status_code in (200, 201, 409), call


def test_what_concerns_the_whole_daemon_is_refused_on_every_route(
    served: ServedParts, limited: httpx.Client
) -> None:
    asked = [call for call in calls(served) if call.alias is Reach.EVERY]
    assert len(asked) >= 12
    for call in asked:
        answer = limited.request(call.method, call.path.replace("{action}", "resume"))
        assert answer.status_code == 403, (call, answer.text)
        assert "without aliases" in answer.json()["error"]["remedy"]


@pytest.mark.usefixtures("support")
def test_lists_and_overviews_show_the_tokens_aliases_alone(
    served: ServedParts, limited: httpx.Client, other: Theirs
) -> None:
    shown = [call for call in calls(served) if call.alias in (Reach.OWN, Named("model"))]
    assert len(shown) >= 6
    for call in shown:
        answer = limited.request(call.method, call.path)
        if answer.status_code == 422:  # it must name one
            continue
        assert answer.status_code == 200, (call, answer.text)
        assert "support" not in answer.text, call
        assert other.model in answer.text, call


@pytest.mark.usefixtures("other")
def test_a_token_without_aliases_sees_all(served: ServedParts, support: Theirs) -> None:
    headers = {"Authorization": f"Bearer {served.control_token}"}
    with httpx.Client(base_url=served.url, headers=headers) as client:
        for call in calls(served):
            if names_an_alias(call):
                assert ask(client, call, support).status_code != 403, call
        for path in ("runs", "rollouts", "adapters", "evaluations"):
            assert len({row["model"] for row in client.get(f"/v1/{path}").json()}) == 2


def test_an_evaluation_of_another_aliass_run_is_hidden(
    limited: httpx.Client, support: Theirs, other: Theirs
) -> None:
    def verdicts(run_id: str) -> int:
        return len(limited.get("/v1/evaluations", params={"run_id": run_id}).json())

    assert (verdicts(support.run), verdicts(other.run)) == (0, 1)


def test_the_status_tells_a_limited_token_which_parts_wait_and_not_why(
    served: ServedParts, limited: httpx.Client
) -> None:
    told = limited.get("/v1/status").json()
    waiting = httpx.get(f"{served.url}/readyz").json()["not_ready"]
    assert [part["part"] for part in told["not_ready"]] == waiting
    assert not set(told) & {"events", "ingest", "host", "gateways"}


def test_events_of_another_alias_are_dead_letters(limited: httpx.Client) -> None:
    event = {
        "schema": "adaptd.interaction/1",
        "id": "i-1",
        "time": NOW.isoformat(),
        "model": "support",
    }
    answer = limited.post("/v1/events", json=[event, event | {"id": "i-2", "model": "other"}])
    results = answer.json()["results"]
    assert [(row["result"], row.get("reason")) for row in results] == [
        ("dead_letter", "model_not_permitted"),
        ("stored", None),
    ]


def test_the_right_to_control_is_never_limited_to_aliases(served: ServedParts) -> None:
    with pytest.raises(RefusedError, match="control"):
        create_token(
            served.settings.tokens_path, tenant="desk", scopes=("control",), models=("other",)
        )
