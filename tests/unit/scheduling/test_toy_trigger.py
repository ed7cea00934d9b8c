"""A trigger from outside the package: its key is read, its facts too, and it decides."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from adaptd.daemon.domain.triggers import UsableExamples
from adaptd.daemon.policy.book import PolicyBook, PolicyVersion
from adaptd.daemon.policy.model import compose_policy
from adaptd.daemon.policy.trigger import TriggerFacts, TriggerScope
from adaptd.daemon.policy.triggers import TRIGGERS
from adaptd.daemon.scheduling.decide import decide, wants_count
from adaptd.daemon.scheduling.service import TriggerService
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.lifecycle.adapters import AdapterStore
from adaptd.daemon.store.lifecycle.policies import PolicyStore
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.store.lifecycle.triggers import TriggerStore
from tests.support.clock import Clock
from tests.support.policy_files import MINIMAL
from tests.support.toy_trigger import EveryNthDayTrigger

TOY = EveryNthDayTrigger()
WITH_TOY = (*TRIGGERS, TOY)
NOON = datetime(2026, 2, 1, 12, tzinfo=UTC)  # day 32 of the year
HEAD = {"version": 1, "model": "support", "base": "tiny"}
ENOUGH = UsableExamples(new_examples=0, train=9, holdout_items=100, holdout_groups=50)


async def test_a_trigger_from_outside_starts_a_run_with_its_own_words() -> None:
    when = {"any": [{"new_examples": 200}, {"every_nth_day": 16}]}
    policy = compose_policy(WITH_TOY).model_validate(HEAD | {"train_when": when})
    database = Database.open(":memory:")
    scope = TriggerScope("support", policy, 1, NOON)

    day = await TOY.read([16], scope, TriggerStore(database))
    database.close()
    facts = TriggerFacts(read={TOY.key: day})

    assert wants_count(policy, facts, now=NOON, triggers=WITH_TOY)
    counted = TriggerFacts(read={TOY.key: day}, usable=ENOUGH)
    decision = decide(policy, counted, now=NOON, triggers=WITH_TOY)
    assert (decision.starts, decision.reason) == (True, "day 32 of the year")
    assert decision.trigger == {"kind": "every_nth_day", "day": 32}


async def test_the_service_starts_a_run_for_a_trigger_from_outside() -> None:
    when = {"any": [{"every_nth_day": 16}]}
    policy = compose_policy(WITH_TOY).model_validate(HEAD | {"train_when": when})
    database, clock, book = Database.open(":memory:"), Clock(NOON), PolicyBook()
    stored = await PolicyStore(database).apply(
        "support", yaml=MINIMAL, sha256="0", path="p/support.yaml", now=NOON
    )
    version = book.remember(stored)
    assert version is not None
    book.settle({"support": replace(version, policy=policy)}, [])
    runs = RunStore(database)

    async def seal() -> datetime:
        return clock.now

    async def preview(_: PolicyVersion, *, as_of: datetime) -> UsableExamples:
        assert as_of == clock.now
        return ENOUGH

    service = TriggerService(
        book,
        runs=runs,
        adapters=AdapterStore(database),
        store=TriggerStore(database),
        preview=preview,
        seal=seal,
        tick_s=0.3,
        clock=clock,
        triggers=WITH_TOY,
    )
    await service.tick()

    run = await runs.active("support")
    assert run is not None
    assert run.trigger["kind"] == "every_nth_day"
    database.close()


def test_a_trigger_from_outside_says_what_it_waits_for_among_the_others() -> None:
    when = {"any": [{"new_examples": 200}, {"every_nth_day": 31}]}
    policy = compose_policy(WITH_TOY).model_validate(HEAD | {"train_when": when})
    facts = TriggerFacts(read={TOY.key: 32})

    decision = decide(policy, facts, now=NOON, triggers=WITH_TOY)

    assert decision.reason == "0 of 200 new examples; day 32 is no multiple of 31"


def test_its_value_is_checked_like_any_other() -> None:
    bad = HEAD | {"train_when": {"any": [{"every_nth_day": 0}]}}
    with pytest.raises(ValidationError, match="every_nth_day"):
        compose_policy(WITH_TOY).model_validate(bad)


def test_every_trigger_of_the_folder_has_a_key_of_its_own() -> None:
    keys = [trigger.key for trigger in TRIGGERS]
    assert sorted(set(keys)) == ["cron", "negative_share", "new_examples", "tainted"]
    assert len(keys) == len(set(keys))
