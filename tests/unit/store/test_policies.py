"""Policy versions: numbers rise, the same text is the same version."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from adaptd.daemon.domain.policies import StoredPolicy
from adaptd.daemon.store.database.database import Database, rows
from adaptd.daemon.store.lifecycle.policies import PolicyStore

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    opened = Database.open(":memory:")
    yield opened
    opened.close()


async def apply(store: PolicyStore, text: str, *, minutes: int, model: str = "a") -> StoredPolicy:
    now = NOW + timedelta(minutes=minutes)
    return await store.apply(model, yaml=text, sha256=f"sha-{text}", path="p/a.yaml", now=now)


async def test_versions_rise_per_alias_and_a_text_that_returns_keeps_its_number(
    database: Database,
) -> None:
    store = PolicyStore(database)
    numbers = [(await apply(store, t, minutes=n)).version for n, t in enumerate("xyxz")]
    other = await apply(store, "x", minutes=9, model="b")

    assert (numbers, other.version) == ([1, 2, 1, 3], 1)
    returned = (await store.all())[0]
    assert returned.loaded_at == NOW
    assert returned.applied_at == NOW + timedelta(minutes=2)


async def test_applying_what_is_in_force_changes_nothing(database: Database) -> None:
    store = PolicyStore(database)
    first = await apply(store, "x", minutes=0)
    again = await apply(store, "x", minutes=5)

    assert first == again
    found = await database.read(lambda c: rows(c, "SELECT action, subject FROM audit"))
    assert found == [{"action": "policy.applied", "subject": "a"}]


async def test_an_alias_is_withdrawn_once_and_until_it_is_applied_again(database: Database) -> None:
    store = PolicyStore(database)
    await apply(store, "x", minutes=0)
    await store.withdraw("a", now=NOW + timedelta(minutes=1))
    await store.withdraw("a", now=NOW + timedelta(minutes=2))
    await store.withdraw("b", now=NOW)
    (gone,) = await store.all()
    back = await apply(store, "x", minutes=3)

    assert gone.withdrawn_at == NOW + timedelta(minutes=1)
    assert (back.version, back.withdrawn_at) == (1, None)
    assert back.applied_at == NOW + timedelta(minutes=3)
    found = await database.read(lambda c: rows(c, "SELECT action FROM audit ORDER BY sequence"))
    actions = [row["action"] for row in found]
    assert actions == ["policy.applied", "policy.withdrawn", "policy.applied"]
