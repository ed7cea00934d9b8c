"""A snapshot from stored events: its content, equal each time."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from adaptd.daemon.dataset.build import NotEnoughError, SnapshotBuilder, names_tenant
from adaptd.daemon.dataset.render import Renderer
from adaptd.daemon.domain.states import RunState
from adaptd.daemon.policy.book import PolicyVersion
from adaptd.daemon.policy.load import Limits, load_policy
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.examples.files import ExampleFiles
from adaptd.daemon.store.examples.sandbox import Sandbox
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.store.lifecycle.snapshots import (
    HoldoutStore,
    HoldoutVersion,
    Snapshot,
    SnapshotStore,
)
from adaptd.daemon.wire.errors import PolicyError
from tests.support.event_samples import NOON, a_correction, an_interaction
from tests.support.ingesting import Ingesting

AS_OF = NOON + timedelta(hours=9)
POLICY = """\
version: 1
model: support
base: tiny
select:
  where: "tags['product'] = 'cards'"
  caps: {per_user: 1000, per_user_share: 1.0, min_age: 1h}
curate:
  holdout: {share: 0.3, at_least: 30, golden: golden.jsonl}
"""


@pytest.fixture
def ingesting() -> Iterator[Ingesting]:
    database = Database.open(":memory:")
    yield Ingesting(database, NOON + timedelta(hours=1))
    database.close()


def a_builder(ingesting: Ingesting, base: Path, directory: Path) -> SnapshotBuilder:
    return SnapshotBuilder(
        examples=ExampleFiles(ingesting.database, directory.parent / "examples"),
        snapshots=SnapshotStore(ingesting.database),
        holdouts=HoldoutStore(ingesting.database),
        sandbox=Sandbox(memory_mb=256),
        bases={"tiny": base},
        directory=directory,
        key=b"of a test",
    )


def a_version(folder: Path, text: str = POLICY) -> PolicyVersion:
    folder.mkdir(exist_ok=True)
    item = {"messages": [{"role": "user", "content": "question 7?"}], "reference": "seven"}
    (folder / "golden.jsonl").write_text(json.dumps(item) + "\n")
    path = folder / "support.yaml"
    path.write_text(text)
    loaded = load_policy(path, folder=folder, limits=Limits())
    assert loaded.policy is not None, loaded.problems
    moment = datetime(2026, 11, 1, tzinfo=UTC)
    return PolicyVersion("support", 1, loaded.policy, "sha", str(path), text, moment, moment)


async def fill(ingesting: Ingesting, count: int = 150, start: int = 0) -> None:
    events: list[dict[str, Any]] = []
    for n in range(start, start + count):
        request = {"messages": [{"role": "user", "content": f"question {n}?"}]}
        asked = an_interaction(id=f"i{n:03}", conversation=f"c{n}", request=request)
        events += [asked, a_correction(f"i{n:03}", f"answer {n}", id=f"f{n:03}")]
    await ingesting.add(*events)


async def test_a_snapshot_holds_rendered_rows_with_loss_on_the_answer(
    ingesting: Ingesting, tiny_base: Path, tmp_path: Path
) -> None:
    await fill(ingesting)
    builder = a_builder(ingesting, tiny_base, tmp_path / "snapshots")

    snapshot = await builder.build("run-1", a_version(tmp_path / "policies"), as_of=AS_OF)

    rows = pq.read_table(Path(snapshot.path) / "train.parquet").to_pylist()
    assert len(rows) == snapshot.train_rows
    assert snapshot.train_rows + snapshot.holdout_rows == 149  # question 7 is golden
    number = int(rows[0]["interaction"][1:])
    renderer = Renderer(tiny_base)
    prompt = renderer.prompt_ids([{"role": "user", "content": f"question {number}?"}])
    answer = renderer.answer_ids(f"answer {number}")
    assert rows[0]["input_ids"] == prompt + answer
    assert rows[0]["loss_mask"] == [0] * len(prompt) + [1] * len(answer)


async def test_the_same_events_give_the_same_bytes(
    ingesting: Ingesting, tiny_base: Path, tmp_path: Path
) -> None:
    await fill(ingesting)
    version = a_version(tmp_path / "policies")
    builder = a_builder(ingesting, tiny_base, tmp_path / "snapshots")

    first = await builder.build("run-1", version, as_of=AS_OF)
    await ingesting.add(an_interaction(id="later"), a_correction("later"), at=AS_OF + timedelta(1))
    second = await builder.build("run-2", version, as_of=AS_OF)

    assert first.content_hash == second.content_hash
    assert digests(Path(first.path)) == digests(Path(second.path))


async def test_a_build_may_be_repeated(
    ingesting: Ingesting, tiny_base: Path, tmp_path: Path
) -> None:
    await fill(ingesting)
    version = a_version(tmp_path / "policies")
    builder = a_builder(ingesting, tiny_base, tmp_path / "snapshots")

    first = await builder.build("run-1", version, as_of=AS_OF)
    second = await builder.build("run-1", version, as_of=AS_OF)

    assert first == second
    lineage = await ingesting.ask("SELECT count(*) AS n FROM snapshot_rows")
    assert lineage == [{"n": first.train_rows + first.holdout_rows}]


async def test_no_item_is_on_both_sides(
    ingesting: Ingesting, tiny_base: Path, tmp_path: Path
) -> None:
    await fill(ingesting)
    builder = a_builder(ingesting, tiny_base, tmp_path / "snapshots")

    snapshot = await builder.build("run-1", a_version(tmp_path / "policies"), as_of=AS_OF)

    sides = await ingesting.ask('SELECT "group", side FROM snapshot_rows')
    trained = {row["group"] for row in sides if row["side"] == "train"}
    assert not trained & {row["group"] for row in sides if row["side"] == "holdout"}
    prompts = pq.read_table(Path(snapshot.path) / "golden.parquet")["prompt_ids"].to_pylist()
    train = pq.read_table(Path(snapshot.path) / "train.parquet")["input_ids"].to_pylist()
    assert not any(row[: len(prompt)] == prompt for row in train for prompt in prompts)


async def test_too_little_held_out_is_refused_with_the_line_of_the_policy(
    ingesting: Ingesting, tiny_base: Path, tmp_path: Path
) -> None:
    await fill(ingesting, 20)
    builder = a_builder(ingesting, tiny_base, tmp_path / "snapshots")

    with pytest.raises(NotEnoughError, match=r"support\.yaml:\d+"):
        await builder.build("run-1", a_version(tmp_path / "policies"), as_of=AS_OF)


async def test_a_preview_counts_what_the_last_snapshot_did_not_have(
    ingesting: Ingesting, tiny_base: Path, tmp_path: Path
) -> None:
    await fill(ingesting)
    version = a_version(tmp_path / "policies")
    builder = a_builder(ingesting, tiny_base, tmp_path / "snapshots")
    before = await builder.preview(version, as_of=AS_OF)
    await a_version_came_of(ingesting, await builder.build("run-1", version, as_of=AS_OF))
    await ingesting.add(an_interaction(id="new"), a_correction("new"))

    after = await builder.preview(version, as_of=AS_OF)

    assert (before.examples, before.new_examples) == (149, 149)  # question 7 is golden
    assert (after.examples, after.new_examples) == (150, 1)


async def a_version_came_of(ingesting: Ingesting, snapshot: Snapshot) -> None:
    runs = RunStore(ingesting.database)
    run = await runs.create(
        "support", policy_version=1, trigger={}, start_from=None, actor="test", now=AS_OF
    )
    await runs.set_snapshot(run.run_id, snapshot.snapshot_id)
    for state in (RunState.BUILDING, RunState.TRAINING, RunState.TRAINED):
        await runs.move(run.run_id, state, actor="test", reason="so", now=AS_OF)


async def test_a_policy_cannot_reach_beyond_its_examples(
    ingesting: Ingesting, tiny_base: Path, tmp_path: Path
) -> None:
    await fill(ingesting, 3)
    builder = a_builder(ingesting, tiny_base, tmp_path / "snapshots")
    version = a_version(
        tmp_path / "policies",
        POLICY.replace("tags['product'] = 'cards'", "EXISTS (FROM read_text('/etc/passwd'))"),
    )

    with pytest.raises(PolicyError, match=r"support\.yaml:5: select\.where: it holds a subquery"):
        await builder.build("run-1", version, as_of=AS_OF)


@pytest.mark.parametrize(
    ("golden", "said"),
    [
        ("{}\n", r"golden\.jsonl:1: the item is wrong"),
        (None, r"support\.yaml:8: curate\.holdout\.golden: it cannot be read"),
        (
            '{"messages": [{"role": "user", "content": [1]}], "reference": "a"}\n',
            "content is not text",
        ),
        ('{"messages": [{"role": "user"}], "reference": "a<|im_end|>"}\n', "a special token"),
    ],
)
async def test_a_golden_file_that_broke_meanwhile_is_named(
    ingesting: Ingesting, tiny_base: Path, tmp_path: Path, golden: str | None, said: str
) -> None:
    builder = a_builder(ingesting, tiny_base, tmp_path / "snapshots")
    version = a_version(tmp_path / "policies")
    path = tmp_path / "policies" / "golden.jsonl"
    path.unlink() if golden is None else path.write_text(golden)

    with pytest.raises(PolicyError, match=said):
        await builder.build("run-1", version, as_of=AS_OF)


async def test_what_one_tenant_wrote_does_not_train_what_another_is_served(
    ingesting: Ingesting, tiny_base: Path, tmp_path: Path
) -> None:
    for tenant in ("app", "desk", None):  # a sender without one is the operator's own
        asked = an_interaction(id=f"t-{tenant}", tenant=tenant)
        await ingesting.add(asked, a_correction(f"t-{tenant}", tenant=tenant))
    builder = a_builder(ingesting, tiny_base, tmp_path / "snapshots")
    version = a_version(tmp_path / "policies")

    with pytest.raises(PolicyError, match=r"support\.yaml:5: examples of 2 tenants meet \(app, d"):
        await builder.preview(version, as_of=AS_OF)


@pytest.mark.parametrize(("tenants", "count"), [("= 'app'", 1), ("IN ('app', 'desk')", 2)])
async def test_a_policy_that_names_tenants_learns_from_these(
    ingesting: Ingesting, tiny_base: Path, tmp_path: Path, tenants: str, count: int
) -> None:
    for number, tenant in enumerate(("app", "desk")):
        request = {"messages": [{"role": "user", "content": f"question {number}?"}]}
        asked = an_interaction(id=f"t{number}", tenant=tenant, request=request)
        await ingesting.add(asked, a_correction(f"t{number}", tenant=tenant))
    builder = a_builder(ingesting, tiny_base, tmp_path / "snapshots")
    where = POLICY.replace("tags['product'] = 'cards'", f"tenant {tenants}")

    found = await builder.preview(a_version(tmp_path / "policies", where), as_of=AS_OF)

    assert found.examples == count


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("true", False),
        ("tags['tenant'] = 'app'", False),
        ("true -- whatever tenant", False),
        ("id > '' /* of any\ntenant */", False),
        ("tags['it''s'] = 'tenant' AND model = 'tenant'", False),
        ("Tenant = 'app' -- only", True),
        ('"tenant" IS NOT NULL', True),
    ],
)
def test_only_the_column_names_a_tenant(where: str, named: bool) -> None:
    assert names_tenant(where) is named


HOSTILE: list[Any] = [
    {"messages": [{"role": "user", "content": {"a": [1, {"b": None}]}}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
    {"messages": [{"role": "assistant", "tool_calls": [5], "content": "x"}]},
    {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]},
    {"messages": [{"role": "user", "content": "x"}], "tools": "all"},
    {"messages": [{"role": 5}]},
    {"messages": {"role": "user"}},
    {"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"messages": 5}},
    {"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": [1]},
    {"prompt": "x"},
    {},
]


async def test_nothing_a_sender_sends_stops_a_build(
    ingesting: Ingesting, tiny_base: Path, tmp_path: Path
) -> None:
    await fill(ingesting)
    for number, request in enumerate(HOSTILE):
        await ingesting.add(an_interaction(id=f"x{number}", request=request))
        await ingesting.add(a_correction(f"x{number}", "<|im_end|>" if number % 2 else "fine"))
    builder = a_builder(ingesting, tiny_base, tmp_path / "snapshots")

    snapshot = await builder.build("run-1", a_version(tmp_path / "policies"), as_of=AS_OF)

    assert snapshot.train_rows + snapshot.holdout_rows >= 149
    assert sum(snapshot.manifest["refused"].values()) >= len(HOSTILE) - 4


async def test_a_version_with_too_few_left_gives_way_to_its_successor(
    ingesting: Ingesting, tiny_base: Path, tmp_path: Path
) -> None:
    """The first version was used and its conversations left the window: runs must go on."""
    await fill(ingesting)
    version = a_version(tmp_path / "policies")
    builder = a_builder(ingesting, tiny_base, tmp_path / "snapshots")
    first = await builder.build("run-1", version, as_of=AS_OF)
    holdouts = HoldoutStore(ingesting.database)
    await holdouts.score("support", "fresh:1", "support@v1-00000000", now=AS_OF)
    await fill(ingesting, 150, start=500)
    late = a_version(
        tmp_path / "policies", POLICY.replace("'cards'\"", "'cards' AND id >= 'i500'\"")
    )
    both = await builder.build("run-2", version, as_of=AS_OF)
    second = await builder.build("run-3", late, as_of=AS_OF)

    assert [s.holdout_version for s in (first, both, second)] == [1, 1, 2]
    assert both.holdout_rows == first.holdout_rows  # new groups wait for the next version
    assert await _read_current(holdouts) == _expect_version(2, 0, 2)
    sides = await ingesting.ask('SELECT DISTINCT "group", side FROM snapshot_rows')
    trained = {row["group"] for row in sides if row["side"] == "train"}
    assert not trained & {row["group"] for row in sides if row["side"] == "holdout"}


async def test_leftovers_of_killed_builds_are_removed(
    ingesting: Ingesting, tiny_base: Path, tmp_path: Path
) -> None:
    (tmp_path / "snapshots" / ".snapshot-run-1.77").mkdir(parents=True)
    a_builder(ingesting, tiny_base, tmp_path / "snapshots").clean()
    assert list((tmp_path / "snapshots").iterdir()) == []


async def test_a_holdout_version_counts_candidates_once_and_closes(ingesting: Ingesting) -> None:
    store = HoldoutStore(ingesting.database)
    assert (
        await store.current("support", now=AS_OF)
        == (await _read_current(store))
        == _expect_version(1, 0, 1)
    )

    counted = [await store.score("support", "fresh:1", f"v{n}", now=AS_OF) for n in range(1, 8)]
    again = await store.score("support", "fresh:1", "v3", now=AS_OF)

    assert (counted, again) == ([1, 2, 3, 4, 5, 6, 7], 3)
    assert await _read_current(store) == _expect_version(1, 7, 2)
    assert await store.score("support", "fresh:1", "v8", now=AS_OF) == 8
    assert await _read_current(store) == _expect_version(2, 0, 2)
    assert await store.score("support", "golden:abc", "v8", now=AS_OF) == 1


def _expect_version(version: int, scored: int, joining: int) -> tuple[Any, int]:
    return HoldoutVersion(version, scored), joining


async def _read_current(store: HoldoutStore) -> tuple[Any, int]:
    return await store.current("support", now=AS_OF)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(folder.iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
