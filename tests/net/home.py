"""An installation with a bit of everything, made through the product's own stores.

Two aliases: `support` has a live version, a canary on its first step and a run in training;
`billing` has a run in the queue and a rollout that was aborted.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from adaptd.consumers.doors.http_door import EventDoor
from adaptd.daemon.domain.erasures import ErasureState, Person
from adaptd.daemon.domain.rollouts import Rollout
from adaptd.daemon.erasure.service import ErasureService, Places, Stores
from adaptd.daemon.settings import Settings
from adaptd.daemon.store.backups.backup import back_up
from adaptd.daemon.store.backups.layout import Place
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.examples.files import ExampleFiles
from adaptd.daemon.store.ingest.orphans import OrphanCount
from adaptd.daemon.store.ingest.sink import EventStore
from adaptd.daemon.store.ingest.tombstones import Tombstones
from adaptd.daemon.store.lifecycle import transitions
from adaptd.daemon.store.lifecycle.policies import PolicyStore
from adaptd.daemon.store.privacy.retention import RetentionStore
from adaptd.daemon.wire.errors import RefusedError
from adaptd.daemon.wire.signing import derive, load_secret
from adaptd.daemon.wire.tokens import Principal
from adaptd.daemon.wiring.installation import GATEWAY_FILE, gateway_settings
from adaptd.serving.gateway.settings import write_settings
from adaptd.serving.host.server_process import ENGINE_FILE, ServerRecord, write_record
from tests.net.lifecycle import Lifecycle
from tests.net.reingestion import leave_halts, leave_letters, leave_replays
from tests.support.clock import Clock
from tests.support.event_samples import NOON, a_correction, a_rating, an_interaction, as_bytes
from tests.support.ingesting import UNSIGNED, Ingesting

BEGIN = NOON + timedelta(hours=1)
GONE, GOING = Person("person-gone", "desk"), Person("person-going", "desk")
POLICY = """\
version: 1
model: {model}
base: tiny
timezone: Europe/Madrid
select:
  where: "tags['product'] = 'cards' AND tenant = 'desk'"
  use: [correction, rating]
  caps: {{per_user: 80, per_user_share: 50%, min_age: 2s}}
curate:
  holdout: {{share: 22%, by: conversation, at_least: 30, golden: golden/support.jsonl}}
train_when:
  any:
    - new_examples: {new}
    - negative_share: {{above: 20%, over: 7d, at_least: 50}}
    - cron: "0 3 * * *"
  cooldown: 1h
train: {{method: auto, rank: 8, start_from: live, steps: 36, batch: 16, learning_rate: 0.005, max_tokens: 256, max_time: 2h}}
gate:
  must_improve: [{{metric: exact_match, on: fresh}}, {{metric: nll, on: golden}}]
  must_not_drop: [{{metric: exact_match, on: golden, by: 5 points}}, {{metric: nll, on: fresh, by: 0.05}}]
  alpha: 0.05
rollout:
  split: conversation
  steps: [{{weight: 25%, at_least: 60s, units: 100}}, {{weight: 50%}}, {{weight: 95%, units: 20}}]
  guard: {{watch: [negative, error, latency], promote_on: [negative], alpha: 0.05, ratio: 1.5, maturity: 32s, evidence_above: 50%}}
  holdback: 5%
  when_inconclusive: hold
  approval: manual
  keep_watching: 10m
"""  # noqa: E501
_DOOR = Principal(
    id="0a1b2c3d",
    tenant="desk",
    scopes=frozenset({"events"}),
    sources=frozenset({"user", "agent"}),
)


class SteppingClock(Clock):
    """A second later each time it is asked, so that no order depends on chance."""

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@contextmanager
def history_by(clock: Clock) -> Iterator[None]:
    """Have the history written by this clock: it reads the machine's."""

    class Told(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return clock()

    with patch.object(transitions, "datetime", Told):
        yield


class NoRollouts:
    """No rollout of a tainted version is on its way."""

    async def act_on_rollout(self, rollout_id: str, action: Any, *, reason: str, actor: str) -> Any:
        raise RefusedError(rollout_id, "there is none", "")


def settings_of(folder: Path) -> Settings:
    """Settings of the installation that lies at `folder`."""
    return Settings(
        home=folder / "home",
        policies_dir=folder / "policies",
        bases={"tiny": folder / "tiny"},
        kafka_bootstrap="broker-1:9092",
    )


class Home:
    """The store and the files below one folder, which is empty."""

    def __init__(self, folder: Path) -> None:
        self.settings = settings_of(folder)
        self.home = self.settings.home
        self.clock = SteppingClock(BEGIN)
        secret = load_secret(self.settings.secret_path)
        self.secret = derive(secret, "erasures").hex()
        self.database = Database.open(self.settings.store_path, threads=1)
        self.ingesting = Ingesting(self.database, self.clock)
        self.ingesting.sink = EventStore(
            self.database,
            dedupe_window=timedelta(days=1),
            clock=self.clock,
            tombstones=Tombstones(self.database, self.secret, clock=self.clock),
        )
        self.lifecycle = Lifecycle(self.database, self.home, self.clock)

    async def fill(self) -> None:
        """Leave everything in it. The order matters: an erasure waits for runs and snapshots."""
        with history_by(self.clock):
            await self.leave_policies()
            await self.leave_events()
            await self.lifecycle.rejected("billing", "f", "gone")
            await self.leave_erasure(GONE, done=True)
            await self.leave_barred_events()
            await leave_letters(self.database, self.clock)
            await leave_halts(self.database, self.clock)
            await leave_replays(self.database, self.clock)
            await self.leave_canary_traffic(await self.lifecycle.leave_support())
            await self.lifecycle.leave_billing()
            await self.leave_seal()
            await OrphanCount(self.database).look()
            await RetentionStore(self.database).note_run("events", 7, now=self.clock())
            await self.leave_erasure(GOING, done=False)
        self.leave_files()

    async def leave_policies(self) -> None:
        """Three versions of `support`, one of them in force again; `old` was withdrawn."""
        store, folder = PolicyStore(self.database), self.settings.policies_dir
        folder.mkdir(parents=True, exist_ok=True)
        for model, new in (
            ("support", 100), ("support", 200), ("support", 100), ("billing", 50), ("old", 10)
        ):  # fmt: skip
            yaml = POLICY.format(model=model, new=new)
            digest = f"{new:064x}"
            path = f"{model}.yaml"
            await store.apply(model, yaml=yaml, sha256=digest, path=path, now=self.clock())
            if model != "old":
                (folder / path).write_text(yaml)
        golden = {"messages": [{"role": "user", "content": "Hi"}], "reference": "card_lost"}
        (folder / "golden").mkdir()
        (folder / "golden" / "support.jsonl").write_text(json.dumps(golden) + "\n")
        await store.withdraw("old", now=self.clock())

    async def leave_events(self) -> None:
        """Every kind of feedback on answers of two aliases, from Kafka and over HTTP."""
        add = self.ingesting.add
        await add(*_events("support", "s", 6), *_events("billing", "b", 4))
        await add(*_every_feedback("s-1"), a_rating("nobody", id="f-orphan"))
        await add(a_rating("s-2", 0.5, id="f-half"), sender=UNSIGNED)  # no scale: of no use
        await add({"batch": [an_interaction(id="s-batch"), a_rating("s-batch", 1, id="f-batch")]})
        await add(*_of_person(GONE, "gone"), *_of_person(GOING, "going"))
        await add(_events("support", "s", 1)[0])  # a duplicate
        await add(
            b"no json",
            b"\xff",
            b'{"schema":"adaptd.interaction/9","id":"newer"}',
            as_bytes(a_rating("s-3", 7, id="f-outside", scale=[0, 5])),
            as_bytes(an_interaction(id="f-later", time="yesterday")),
        )
        body = b"\n".join(map(as_bytes, [an_interaction(id="h-1"), a_rating("h-1", id="f-http")]))
        await EventDoor(self.ingesting.sink).accept(body, "application/x-ndjson", _DOOR)

    async def leave_canary_traffic(self, rollout: Rollout) -> None:
        """What the guard counts: each unit's first answer, some of them judged badly."""
        arms = {"live": rollout.previous, "canary": rollout.candidate}
        for number in range(6):
            arm = ("live", "canary")[number % 2]
            answer = an_interaction(
                id=f"c-{number}",
                time=self.clock().isoformat(),
                tenant="desk",
                unit=f"desk:unit-{number}",
                unit_kind="conversation",
                rollout=rollout.rollout_id,
                arm=arm,
                adapter=arms[arm],
                weight=0.25,
                latency_ms=900.0,
                ttft_ms=50.0 + number,
                usage={"prompt_tokens": 20, "completion_tokens": 40},
            )
            await self.ingesting.add(answer)
            if number > 3:
                said = a_rating(f"c-{number}", id=f"cf-{number}", time=self.clock().isoformat())
                await self.ingesting.add(said)

    async def leave_barred_events(self) -> None:
        """An erased person's event comes again: only that it came is kept."""
        await self.ingesting.add(an_interaction(id="late", user=GONE.user, tenant=GONE.tenant))

    async def leave_erasure(self, person: Person, *, done: bool) -> None:
        stores = Stores(self.database, self.secret, ExampleFiles(self.database, self._examples))
        places = Places(
            home=self.home,
            spool_dir=self.home / "gateway" / "spool",
            policies_dir=self.settings.policies_dir,
            barred_s=90 * 86400,
            rewrite_every_s=0,
            tick_s=1,
        )
        service = ErasureService(stores, places, rollouts=NoRollouts(), clock=self.clock)
        begun = await service.begin(person, reason="asked for", actor="operator:ada")
        if done:
            await service.tick()
            found = await service.get(begun.erasure_id)
            assert found.state is ErasureState.DONE, found.waits_for

    async def leave_seal(self) -> None:
        """One day of examples in a sealed file, and one answer that is in no file yet."""
        examples = ExampleFiles(self.database, self._examples)
        self.clock.now = BEGIN + timedelta(days=1)
        assert await examples.seal("support", now=self.clock())
        await self.ingesting.add(
            an_interaction(id="s-tail"), a_correction("s-tail", "tail", id="f-tail")
        )

    def leave_files(self) -> None:
        """What gateways and a server beside the daemon read."""
        write_settings(self.home / GATEWAY_FILE, gateway_settings(self.settings))
        record = ServerRecord(
            pid=4_000_000,
            boot="00000000-0000-0000-0000-000000000000",
            start_ticks=1234,
            started_at=BEGIN.timestamp(),
            url="http://127.0.0.1:8000",
            settings="0123456789abcdef",
            took_s=31.5,
            dtype="float32",
        )
        write_record(self.home / ENGINE_FILE, record)

    async def back_up(self, destination: Path) -> None:
        place = Place(self.home, self.settings.policies_dir)
        await self.database.aside(
            lambda cursor: back_up(
                cursor, place, destination, key=None, secrets=True, clock=self.clock
            )
        )

    @property
    def _examples(self) -> Path:
        return self.home / "examples"


def _events(model: str, mark: str, count: int) -> list[dict[str, Any]]:
    """Answers of an alias with one thing said of each: three right, the others wrong."""
    answers = [
        an_interaction(
            id=f"{mark}-{number}",
            model=model,
            tenant="desk",
            user=f"user-{number % 3}",
            conversation=f"{mark}-talk-{number}",
            status="error" if number == 5 else "ok",
            latency_ms=100.0 + number,
            usage={"prompt_tokens": 20 + number, "completion_tokens": 5},
            params={"temperature": 0.5},
            gateway="gateway-1",
            later_field={"kept": number},
        )
        for number in range(count)
    ]
    said = [
        a_rating(f"{mark}-{number}", 1 if number < 3 else -1, id=f"{mark}f-{number}", tenant="desk")
        for number in range(count)
    ]
    return [*answers, *said]


def _every_feedback(about: str) -> Sequence[dict[str, Any]]:
    common = {"schema": "adaptd.feedback/1", "time": NOON.isoformat(), "interaction": about}
    message = {"role": "assistant", "content": "card_lost"}
    said = [
        {"kind": "rating", "value": 4, "scale": [1, 5], "user": "bea"},
        {"kind": "rating", "value": -1, "source": "reviewer", "user": "cyd"},
        {"kind": "correction", "text": "card_lost", "user": "bea", "tags": {"shift": "late"}},
        {"kind": "correction", "message": message, "source": "agent", "user": "dan"},
        {"kind": "preference", "chosen": "s-1", "rejected": "s-2", "user": "bea"},
        {"kind": "label", "name": "queue", "value": "cards"},
        {"kind": "metric", "name": "handle_s", "value": 31.5, "source": "system"},
        {"kind": "comment", "text": "It was quick.", "choice": 1, "user": "bea"},
    ]
    return [common | {"id": f"f-kind-{number}"} | given for number, given in enumerate(said)]


def _of_person(person: Person, mark: str) -> list[dict[str, Any]]:
    about = {"user": person.user, "tenant": person.tenant}
    answers = [
        an_interaction(id=f"{mark}-{n}", model="billing", conversation=f"talk-{mark}", **about)
        for n in range(3)
    ]
    said = [a_correction(f"{mark}-{n}", f"of {mark}", id=f"{mark}f-{n}", **about) for n in range(3)]
    return [*answers, *said]
