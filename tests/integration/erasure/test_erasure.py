"""A person leaves every file, whatever it is and whenever the daemon is killed; others stay."""

import asyncio
import gzip
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from adaptd.consumers.decoding.decode import SIGNED, Record, decode
from adaptd.consumers.decoding.json_events import UnreadableError
from adaptd.daemon.domain.erasures import ErasureState, Person
from adaptd.daemon.domain.ingest import LogRange, Span
from adaptd.daemon.domain.states import AdapterState, RunState
from adaptd.daemon.erasure.leftovers import remove_tree
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.database.encryption import StoreKey, is_encrypted
from adaptd.daemon.wire.errors import RefusedError
from tests.support.erasure_world import (
    KEPT_TOKENS,
    OTHER,
    PERSON,
    SPOOL,
    TOKENS,
    WORDS,
    ErasureWorld,
    store_traces,
    traces,
)
from tests.support.event_samples import NOON as NOW
from tests.support.event_samples import a_correction, a_rating, an_interaction, as_bytes
from tests.support.ingesting import EVENTS, Ingesting
from tests.support.waiting import LIMIT_S

IDS = ("pzq-1", "pzq-2", "pzqf-1", "pzqf-2", f"talk-{PERSON}")
POINTS = [
    "before:_collect_traces",
    "after:_collect_traces",
    "before:_clean_snapshot",
    "after:_clean_snapshot",
    "after:_clean_files",
    "before:_list_members",
    "after:_remove_rows",
    "before:_exchange_files",
    "before:_swap_file",
    "after:_swap_file",
    "after:rewrite",
]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ErasureWorld]:
    (tmp_path / "home").mkdir()
    made = ErasureWorld(tmp_path / "home")
    await made.plant()
    yield made
    made.database.close()


async def test_a_person_is_in_no_file_of_ours_and_the_others_still_are(
    world: ErasureWorld,
) -> None:
    erasure = await world.erase()

    report = erasure.report
    assert (report["interactions"], report["feedback"]) == (2, 3)
    assert report["dead_letters"] == 2
    assert [letters["offsets"] for letters in report["letters"]] == [[[12, 13]]]
    assert report["snapshots"] == ["snapshot-run-a"]
    assert [place.partition(":")[2] for place in report["golden"]] == ["2"]
    kept = await world.ingesting.ask("SELECT id FROM interactions ORDER BY id")
    assert [row["id"] for row in kept] == ["k-1", "k-2", "k-else", "pzq-else"]
    assert len(await world.ingesting.ask("SELECT id FROM feedback")) == 3
    world.database.close()
    assert_gone(world.home)
    assert_others_are_there(world.home)


async def test_versions_trained_on_the_person_and_their_descendants_are_tainted(
    world: ErasureWorld,
) -> None:
    await world.erase()

    clean, child, live = await world.adapters.list("support")
    assert (live.state, live.tainted_by is not None) == (AdapterState.LIVE, True)
    assert (child.state, is_there(child.path)) == (AdapterState.ERASED, False)
    assert (clean.state, clean.tainted_by) == (AdapterState.CANDIDATE, None)
    asked = "SELECT evidence FROM transitions WHERE subject = $name AND to_state = 'live (tainted)'"
    evidence = json.loads((await world.ingesting.ask(asked, name=live.name))[0]["evidence"])
    assert (evidence["train_rows"], len(evidence["row_keys"])) == (1, 2)
    assert json.loads((Path(live.path) / "probes.json").read_bytes())["probes"]


async def test_a_tainted_version_goes_once_another_is_live(world: ErasureWorld) -> None:
    await world.erase()
    clean, _, live = await world.adapters.list("support")

    await world.adapters.move(live.name, AdapterState.TAINTED, actor="t", reason="")
    await world.adapters.move(clean.name, AdapterState.LIVE, actor="t", reason="")
    await world.service.tick()

    assert (await world.adapters.get(live.name)).state is AdapterState.ERASED
    assert not is_there(live.path)


async def test_events_that_come_again_are_not_stored_until_the_bar_is_lifted(
    world: ErasureWorld,
) -> None:
    await world.erase()
    again = [
        an_interaction(id="again", user=PERSON, tenant="desk"),
        an_interaction(id="turn", conversation=f"talk-{PERSON}", tenant="desk"),
        a_rating("pzq-1", id="late", user="reviewer"),
        b'{"schema":"adaptd.interaction/9","user":"%b"}' % PERSON.encode(),
        an_interaction(id="fine", user=OTHER),
    ]

    written = await world.ingesting.add(*again)

    assert (written.interactions, written.feedback, written.dead_letters) == (1, 0, 4)
    letters = await world.ingesting.ask(
        "SELECT reason, bytes FROM dead_letters WHERE position >= $first", first=16
    )
    assert {(row["reason"], row["bytes"]) for row in letters} == {("erased", None)}
    assert await world.service.lift(Person(PERSON), reason="is back", actor="test") == 1
    assert (await world.ingesting.add(an_interaction(user=PERSON))).interactions == 1


async def test_a_replay_leaves_one_letter_of_what_is_barred_however_often(
    world: ErasureWorld,
) -> None:
    await world.erase()
    events = [an_interaction(id="again", user=PERSON), a_rating("pzq-1", user="reviewer")]
    records = [
        Record(as_bytes(event), EVENTS.topic, EVENTS.number, 1000 + index, SIGNED, None)
        for index, event in enumerate(events)
    ]
    for run in ("replay:a", "replay:b"):
        await world.ingesting.sink.pin(run, {EVENTS: LogRange("topic-id", 1000, 1000, "c")})
        span = Span(EVENTS, 1000, 1002)
        await world.ingesting.sink.write(decode(records, source=run, spans=[span]))

    letters = await world.ingesting.ask(
        "SELECT source, position FROM dead_letters WHERE position >= 1000 ORDER BY position"
    )
    assert letters == [
        {"source": "replay:a", "position": 1000},
        {"source": "replay:a", "position": 1001},
    ]


async def test_a_unit_that_is_the_person_is_barred_and_a_turn_without_tenant_goes(
    world: ErasureWorld,
) -> None:
    talk = f"talk-{PERSON}"
    unit = {"unit_kind": "user", "unit": PERSON, "user": "another"}
    await world.ingesting.add(
        an_interaction(id="quotes", user=None, tenant=None, conversation=talk),
        an_interaction(id="theirs", user=None, tenant="other", conversation=talk),
        an_interaction(id="unit", **unit),
    )
    await world.erase(Person(PERSON))
    await world.ingesting.add(an_interaction(id="unit-again", **unit))

    kept = await world.ingesting.ask("SELECT id FROM interactions WHERE id IN $ids", ids=[
        "quotes", "theirs", "unit", "unit-again"
    ])  # fmt: skip
    assert [row["id"] for row in kept] == ["theirs"]


async def test_a_snapshot_whose_feedback_went_is_refused_and_its_build_waited_for(
    world: ErasureWorld,
) -> None:
    """Built from a correction by the person of somebody else's answer, read before the erasure."""
    correction = a_correction("k-else", "mine", id="pzq-late", user=PERSON)
    await world.ingesting.add(correction)
    run = await world.runs.create(
        "support", policy_version=1, trigger={}, start_from=None, actor="test", now=NOW
    )
    await world.runs.move(run.run_id, RunState.BUILDING, actor="test", reason="", now=NOW)
    begun = await world.service.begin(Person(PERSON), reason="asked", actor="test")
    for _ in range(5):
        await world.service.tick()
    waiting = await world.service.get(begun.erasure_id)
    assert run.run_id in str(waiting.waits_for)

    await world.runs.move(run.run_id, RunState.CANCELLED, actor="test", reason="", now=NOW)
    await world.finish(begun.erasure_id)
    row = {"side": "train", "interaction": "k-else", "feedback": "pzq-late", "user": "somebody"}
    late = msgspec.structs.replace(
        await world.snapshots.get("snapshot-run-b"), snapshot_id="late", content_hash="late"
    )
    with pytest.raises(RefusedError, match="erased while it was built"):
        await world.snapshots.add(late, [row | {"group": "g"}])


async def test_letters_that_nobody_can_look_into_come_again_without_their_bytes(
    world: ErasureWorld,
) -> None:
    packed = b"\x1f\x8b\x00packed-zq7f\x00\xff"
    letters = [
        gzip.compress(PERSON.encode()) + b"gzipped-zq7f",
        b'cut" {"user":"%b","note":"cut-zq7f' % PERSON.encode(),
        b'"{\\"user\\":\\"%b\\",\\"note\\":\\"quoted-zq7f\\"}"' % PERSON.encode(),
        b'{"tool":"","text":"%b","user":"%b"}' % (b"long-zq7f " * 90, PERSON.encode()),
    ]
    refused = UnreadableError("unpacks_too_large", "2 records, offsets 16 to 17")
    kept = b'{"schema":"adaptd.interaction/9","user":"kept-zq7f"}'
    for _ in range(2):  # before the erasure, and again after it
        await world.ingesting.add(packed, sender=refused)
        await world.ingesting.add(*letters, kept)
        await world.erase()

    again = await world.ingesting.ask(
        "SELECT reason, detail, bytes, sender IS NOT NULL AS again FROM dead_letters"
        " WHERE position > 20 ORDER BY position"
    )
    assert [row["reason"] for row in again] == [
        "unpacks_too_large", "not_utf8", "not_json", "not_an_object", "erased", "unknown_version",
    ]  # fmt: skip
    assert [row["bytes"] for row in again] == [None] * 5 + [kept]
    assert [row["again"] for row in again] == [False, False, False, False, True, True]
    world.database.close()
    found = [f"{mark}-zq7f" for mark in ("packed", "gzipped", "cut", "quoted", "long")]
    assert traces(world.home, [PERSON, *found], TOKENS) == []
    assert store_traces(world.home / "store.duckdb", [PERSON, *found]) == []


async def test_a_dry_run_changes_nothing(world: ErasureWorld) -> None:
    found = await world.service.preview(Person(PERSON))

    assert (found["interactions"], found["dead_letters"]) == (2, 2)
    assert len(found["versions"]) == 2
    assert any("backups" in place["where"] for place in found["outside"])
    assert await world.service.list() == []
    assert len(await world.ingesting.ask("SELECT id FROM interactions")) == 6


async def test_another_tenants_user_of_the_same_name_stays(world: ErasureWorld) -> None:
    await world.ingesting.add(an_interaction(id="theirs", user=PERSON, tenant="other"))

    await world.erase(Person(PERSON, "desk"))

    kept = await world.ingesting.ask('SELECT id FROM interactions WHERE "user" = $u', u=PERSON)
    assert [row["id"] for row in kept] == ["theirs"]


async def test_erasures_asked_for_together_share_one_rewrite(world: ErasureWorld) -> None:
    for user in (PERSON, "somebody"):
        await world.service.begin(Person(user), reason="asked", actor="test")
    await world.service.tick()

    one, other = await world.service.list()
    assert one.state == other.state == ErasureState.DONE
    assert one.report["rewrite_s"] == other.report["rewrite_s"]


async def test_the_store_serves_on_while_it_is_rewritten(world: ErasureWorld) -> None:
    await world.erase()

    await world.ingesting.add(an_interaction(id="after"))
    await world.database.rewrite()
    assert (await world.ingesting.add(an_interaction(id="after"))).duplicates


async def test_an_encrypted_store_stays_encrypted_when_it_is_rewritten(tmp_path: Path) -> None:
    path, key = tmp_path / "store.duckdb", StoreKey("k" * 32)
    ingesting = Ingesting(Database.open(path, key=key))
    await ingesting.add(an_interaction(id="marked-interaction"))

    await ingesting.database.rewrite()

    assert not (await ingesting.add(an_interaction(id="marked-interaction"))).interactions
    ingesting.database.close()
    assert is_encrypted(path)
    assert b"marked-interaction" not in path.read_bytes()
    reopened = Ingesting(Database.open(path, key=key))
    assert len(await reopened.ask("SELECT id FROM interactions")) == 1
    reopened.database.close()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a home and a copy of it as it was: paths in the store stay true."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "home").mkdir()

    async def plant() -> None:
        world = ErasureWorld(folder / "home")
        await world.plant()
        world.database.close()

    asyncio.run(plant())
    shutil.copytree(folder / "home", folder / "as it was")
    return folder


@pytest.mark.parametrize("point", POINTS)
async def test_a_daemon_killed_at_any_step_goes_on_to_the_same_end(
    planted: Path, point: str
) -> None:
    home = planted / "home"
    remove_tree(home)
    shutil.copytree(planted / "as it was", home)
    command = [sys.executable, "-m", "tests.support.erasure_world", str(home), point]
    killed = await asyncio.to_thread(subprocess.run, command, check=False, timeout=LIMIT_S)
    assert killed.returncode == -signal.SIGKILL

    world = ErasureWorld(home)
    (erasure,) = await world.service.list()
    await world.finish(erasure.erasure_id)
    world.database.close()

    assert_gone(home)
    assert_others_are_there(home)


def is_there(path: str) -> bool:
    return Path(path).exists()


def assert_gone(home: Path) -> None:
    words = [PERSON, WORDS, *IDS]
    assert traces(home, words, TOKENS) == []
    assert store_traces(home / "store.duckdb", [PERSON, WORDS, "pzqf-1"]) == []
    assert not list(home.glob("store.duckdb.*"))


def assert_others_are_there(home: Path) -> None:
    found = " ".join(traces(home, [OTHER, "kf-1"], KEPT_TOKENS))
    for place in ("store.duckdb", "train.parquet", "fresh.parquet", "vllm.log", "probes.json"):
        assert place in found
    assert str(SPOOL) in found
