"""The whole loop on real parts, with a tiny model made on the spot.

Questions go through the gateway in a real vLLM, events through a real broker; corrections train an
adapter, it is proven, takes canary traffic, is voted down and taken back, while no request fails.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from adaptd.daemon.settings import Settings, UpstreamSettings
from adaptd.daemon.store.database.database import Database, rows
from adaptd.daemon.store.lifecycle.transitions import audit_digest
from adaptd.daemon.wire.tokens import create_token
from tests.support.broker import Broker
from tests.support.daemon_world import DaemonProcess, free_port
from tests.support.waiting import LIMIT_S, Patience, until_blocking

QUESTIONS = 150
POLICY = """\
version: 1
model: support
base: tiny
select:
  where: "tags['product'] = 'cards'"
  caps: {per_user: 1000, per_user_share: 100%, min_age: 0s}
curate: {holdout: {share: 35%, at_least: 30}}
train_when: {any: [{new_examples: 100}], cooldown: 0s}
train: {rank: 8, steps: 24, batch: 16, learning_rate: 0.01, max_tokens: 128}
gate: {must_improve: [{metric: nll, on: fresh}]}
rollout:
  steps: [{weight: 50%, at_least: 1s, units: 100000}, {weight: 95%, at_least: 1s, units: 1}]
  guard: {watch: [negative, error], promote_on: [negative], maturity: 2s, evidence_above: 50%}
  keep_watching: 1h
"""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, broker: Broker
) -> Iterator["World"]:
    world = World(tmp_path_factory.mktemp("loop"), tiny_base, broker)
    try:
        world.start()
        yield world
    finally:
        world.stop()


class World:
    """An installation of its own: daemon, vLLM and a client with a token."""

    def __init__(self, folder: Path, base: Path, broker: Broker) -> None:
        self.folder = folder
        policies = folder / "policies"
        policies.mkdir()
        (policies / "support.yaml").write_text(POLICY)
        self.gateway = f"http://127.0.0.1:{free_port()}"
        self.settings = Settings(
            home=folder / "home",
            policies_dir=policies,
            listen_port=free_port(),
            bases={"tiny": base},
            upstream=UpstreamSettings(url=self.gateway),
            tick_s=0.2,
        )
        self.daemon = DaemonProcess(
            self.settings,
            folder / "daemon.log",
            ADAPTD_KAFKA_BOOTSTRAP=broker.bootstrap,
            ADAPTD_KAFKA_CREATE_TOPICS="true",
            ADAPTD_KAFKA_GROUP="acceptance",
        )
        self.token = create_token(
            self.settings.tokens_path,
            tenant="desk",
            scopes=("chat", "feedback"),
            sources=("user", "agent"),
        )[0]
        self.client = OpenAI(base_url=f"{self.gateway}/v1", api_key=self.token, max_retries=0)
        self.asked: list[str] = []

    def start(self) -> None:
        self.daemon.start()
        self.daemon.wait_until_answers()
        until_blocking(lambda: self.daemon.status()["ready"], within_s=240, every_s=1)

    def stop(self) -> None:
        if self.daemon.process is not None and self.daemon.process.poll() is None:
            self.daemon.end(signal.SIGTERM, within_s=60)
        self.command("engine", "stop")
        self.client.close()

    def command(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "adaptd.daemon.cli", *words],
            env=self.daemon._env,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, number: int, conversation: str) -> tuple[str, str]:
        """The interaction's id and the answer."""
        done = self.client.chat.completions.create(
            model="support",
            messages=[{"role": "user", "content": question(number)}],
            max_tokens=6,
            temperature=0,
            extra_headers={"X-Adaptd-Conversation": conversation},
            extra_body={"metadata": {"product": "cards"}},
        )
        assert done.model == "support"
        self.asked.append(done.id)
        return done.id, done.choices[0].message.content or ""

    def say(self, **feedback: Any) -> None:
        response = httpx.post(
            f"{self.gateway}/v1/feedback",
            headers={"Authorization": f"Bearer {self.token}"},
            json=feedback,
            timeout=LIMIT_S,
        )
        assert response.is_success, response.text

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.daemon.url}{path}", headers=self.daemon.headers).json()

    def newest(self, what: str) -> dict[str, Any]:
        found = self.get(f"/v1/{what}?model=support")
        return found[0] if found else {}


def question(number: int) -> str:
    return f"Where is parcel {number} of {number * 7 % 31}?"


def test_feedback_becomes_an_adapter_that_users_can_reject(world: World) -> None:
    base_answers = _ask_and_correct(world)

    run = until_blocking(lambda: _finished(world), within_s=240, every_s=0.5)
    assert run["state"] == "accepted", run

    rollout = until_blocking(lambda: _on_canary(world), within_s=60, every_s=0.2)
    _vote_down_changed_answers(world, base_answers)

    rolled = world.get(f"/v1/rollouts/{rollout['rollout_id']}")
    assert rolled["state"] == "rolled_back", rolled
    moved = [row for row in rolled["history"] if row["to_state"] == "rolled_back"]
    assert len(moved) == 1
    assert "negative" in json.dumps(moved[0]), moved
    for number in range(1, 21):  # every unit is back on what it had before
        assert world.ask(number, f"after-{number}")[1] == base_answers[number]


def test_nothing_was_lost_and_the_history_holds_together(world: World) -> None:
    asked = set(world.asked)
    stored = until_blocking(
        lambda: world.get("/v1/status")["events"]["interactions"] >= len(asked), within_s=30
    )
    assert stored
    world.daemon.end(signal.SIGTERM, within_s=60)

    database = Database.open(world.settings.store_path)
    found = database.write_now(lambda c: rows(c, "SELECT id, arm, adapter FROM interactions"))
    audit = database.write_now(lambda c: rows(c, "FROM audit ORDER BY sequence"))
    database.close()

    assert {row["id"] for row in found} == asked
    assert len(found) == len(asked)
    assert all(row["adapter"] is not None for row in found if row["arm"] == "canary")
    digest = ""
    for row in audit:
        assert row["previous"] == digest
        digest = audit_digest(
            row["sequence"],
            row["happened_at"],
            row["actor"],
            row["action"],
            row["subject"],
            row["detail"],
            row["previous"],
        )
        assert row["digest"] == digest


def _ask_and_correct(world: World) -> dict[int, str]:
    """Every answer is corrected to the same word, by several agents."""
    answers: dict[int, str] = {}
    for number in range(1, QUESTIONS + 1):
        interaction, answers[number] = world.ask(number, f"before-{number}")
        world.say(
            interaction=interaction,
            kind="correction",
            text="refund",
            source="agent",
            user=f"agent-{number % 5}",
        )
    return answers


def _finished(world: World) -> dict[str, Any] | None:
    run = world.newest("runs")
    final = {"accepted", "rejected", "inconclusive", "failed", "cancelled"}
    return run if run.get("state") in final else None


def _on_canary(world: World) -> dict[str, Any] | None:
    rollout = world.newest("rollouts")
    assert rollout.get("state") not in {"rolled_back", "aborted"}, rollout
    return rollout if rollout.get("state") == "step" else None


def _vote_down_changed_answers(world: World, base_answers: dict[int, str]) -> None:
    """Ask old questions anew and vote an answer down where it is not the base's."""
    patience = Patience(120)
    for turn in range(2000):
        number = turn % QUESTIONS + 1
        try:
            interaction, answer = world.ask(number, f"canary-{turn}")
        except openai.OpenAIError as error:
            pytest.fail(f"a request failed during the rollout: {error}")
        if answer != base_answers[number]:
            world.say(interaction=interaction, kind="rating", value=-1, user=f"user-{turn}")
        if turn % 10 == 0 and world.newest("rollouts")["state"] == "rolled_back":
            break
        assert patience.left_s() > 0, world.newest("rollouts")
