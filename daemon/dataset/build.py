"""From stored examples to a snapshot: export, policy SQL in the sandbox, select, split, render."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from daemon import __version__
from daemon.dataset.groups import Split, message_key, split_examples
from daemon.dataset.render import Renderer, RenderError
from daemon.dataset.select import Selection, normalised, select_examples, text_of
from daemon.dataset.snapshot import Contents, SuiteRow, TrainRow, train_row, write_snapshot
from daemon.domain.errors import AdaptdError
from daemon.policy.book import PolicyVersion
from daemon.policy.golden import Golden, read_golden
from daemon.policy.model import MIN_HOLDOUT_GROUPS
from daemon.store.datasets import HoldoutStore, Snapshot, SnapshotStore, fresh_suite
from daemon.store.event_reads import EventReads
from daemon.store.sandbox import Sandbox


class NotEnoughError(AdaptdError):
    """There is too little to train or to measure on."""


class Preview(msgspec.Struct, frozen=True):
    """What a build would find now: for the triggers."""

    examples: int
    new_examples: int
    holdout_items: int
    holdout_groups: int


class _Gathered(msgspec.Struct, frozen=True):
    selection: Selection
    split: Split
    golden: Golden | None
    current: int


class SnapshotBuilder:
    """Builds snapshots; the same stored events and policy version give the same bytes."""

    def __init__(
        self,
        *,
        events: EventReads,
        snapshots: SnapshotStore,
        holdouts: HoldoutStore,
        sandbox: Sandbox,
        bases: Mapping[str, Path],
        directory: Path,
    ) -> None:
        self._events = events
        self._snapshots = snapshots
        self._holdouts = holdouts
        self._sandbox = sandbox
        self._bases = bases
        self._directory = directory
        self._renderers: dict[Path, Renderer] = {}

    async def preview(self, version: PolicyVersion, *, as_of: datetime) -> Preview:
        """Count what a build would find. Changes nothing."""
        gathered = await self._gather(version, as_of)
        seen = await self._snapshots.seen_feedback(version.model)
        held = _held(gathered)
        usable = [row[0] for row in (*gathered.split.train, *gathered.split.holdout)]
        return Preview(
            examples=len(usable),
            new_examples=sum(example.feedback not in seen for example in usable),
            holdout_items=len(held),
            holdout_groups=len({row[1] for row in held}),
        )

    async def build(self, run_id: str, version: PolicyVersion, *, as_of: datetime) -> Snapshot:
        """Make a run's snapshot. Safe to repeat after a kill at any line.

        Raises:
            NotEnoughError: no training rows, or fewer held out than the policy asks.
            AdaptdError: the policy's expression, golden file or base cannot be used.
        """
        gathered = await self._gather(version, as_of)
        _check_enough(gathered, version)
        await self._holdouts.assign(version.model, gathered.split.new, now=as_of)
        renderer = self._renderer(version)
        contents, refused = await asyncio.to_thread(_render, gathered, renderer, version)
        if not contents.train:
            raise NotEnoughError("dataset", "no example is left to train on", "Widen the policy")
        snapshot_id = f"snapshot-{run_id}"
        directory = self._directory / snapshot_id
        facts = _facts(gathered, version, as_of, refused)
        manifest = await asyncio.to_thread(write_snapshot, directory, contents, facts)
        snapshot = Snapshot(
            snapshot_id=snapshot_id,
            model=version.model,
            policy_version=version.version,
            as_of=as_of,
            content_hash=manifest["content_hash"],
            path=str(directory),
            train_rows=len(contents.train),
            holdout_rows=len(contents.fresh),
            golden_rows=len(contents.golden),
            holdout_version=gathered.current,
            created_at=as_of,
            manifest=manifest,
        )
        await self._snapshots.add(snapshot, _lineage(gathered, contents))
        return snapshot

    async def _gather(self, version: PolicyVersion, as_of: datetime) -> _Gathered:
        select = version.policy.select
        with tempfile.TemporaryDirectory(prefix="adaptd-examples-") as folder:
            path = Path(folder) / "examples.parquet"
            await self._events.export_examples(path, as_of=as_of, model=version.model)
            table = await self._sandbox.select(path, select.where, as_of=as_of, judged_only=True)
        selection = await asyncio.to_thread(
            lambda: select_examples(_rows(table), select, as_of=as_of)
        )
        golden = await asyncio.to_thread(_read_golden, version)
        current, joining = await self._holdouts.current(version.model, now=as_of)
        split = split_examples(
            selection.examples,
            await self._holdouts.members(version.model),
            _golden_keys(golden),
            share=version.policy.curate.holdout.share,
            joining=joining,
        )
        return _Gathered(selection, split, golden, current.version)

    def _renderer(self, version: PolicyVersion) -> Renderer:
        base = self._bases[version.policy.base]
        if base not in self._renderers:
            self._renderers[base] = Renderer(base)
        return self._renderers[base]


def _rows(table: Any) -> list[dict[str, Any]]:
    return table.to_pylist(maps_as_pydicts="lossy")


def _read_golden(version: PolicyVersion) -> Golden | None:
    name = version.policy.curate.holdout.golden
    if name is None:
        return None
    golden = read_golden(Path(version.path).parent, name)
    if golden.problems:
        first = golden.problems[0]
        raise AdaptdError(f"{golden.path}:{first.line}", first.what, first.remedy)
    return golden


def _golden_keys(golden: Golden | None) -> list[str]:
    items = golden.items if golden else ()
    return [message_key(normalised(text_of(item.messages[-1].get("content")))) for item in items]


def _held(gathered: _Gathered) -> list[Any]:
    return [held for held in gathered.split.holdout if held[2] == gathered.current]


def _check_enough(gathered: _Gathered, version: PolicyVersion) -> None:
    held = _held(gathered)
    groups = len({row[1] for row in held})
    wanted = version.policy.curate.holdout.at_least
    if len(held) < wanted or groups < MIN_HOLDOUT_GROUPS:
        found = f"{len(held)} items in {groups} groups are held out"
        remedy = f"Wait for {wanted} in {MIN_HOLDOUT_GROUPS} groups, or change curate.holdout"
        raise NotEnoughError(version.where("curate", "holdout"), found, remedy)
    if not gathered.split.train:
        raise NotEnoughError("dataset", "no example is left to train on", "Widen the policy")


def _render(
    gathered: _Gathered, renderer: Renderer, version: PolicyVersion
) -> tuple[Contents, dict[str, int]]:
    refused: Counter[str] = Counter()
    most = version.policy.train.max_tokens
    train: list[TrainRow] = []
    for example, group in gathered.split.train:
        ids = _ids(renderer, example.messages, example.tools, example.template_args, refused)
        answer = renderer.answer_ids(example.answer)
        if ids is None:
            continue
        if len(ids) + len(answer) > most:
            refused["too_long"] += 1
            continue
        names = {"interaction": example.interaction, "feedback": example.feedback}
        train.append(train_row(ids, answer, **names, group=group))
    fresh = _fresh(gathered, renderer, refused, most)
    return Contents(train=train, fresh=fresh, golden=_golden(gathered, renderer)), dict(refused)


def _fresh(
    gathered: _Gathered, renderer: Renderer, refused: Counter[str], most: int
) -> list[SuiteRow]:
    suite: list[SuiteRow] = []
    for example, group, _ in _held(gathered):
        ids = _ids(renderer, example.messages, example.tools, example.template_args, refused)
        reference = renderer.answer_ids(example.answer)
        if ids is not None and len(ids) + len(reference) <= most:
            suite.append(_suite_row(example.feedback, group, ids, reference, example.answer))
    return suite


def _golden(gathered: _Gathered, renderer: Renderer) -> list[SuiteRow]:
    """An item that cannot be rendered stops the build: the file is the operator's own."""
    items = gathered.golden.items if gathered.golden else ()
    return [
        _suite_row(
            item.name,
            item.name,
            renderer.prompt_ids(item.messages, tools=item.tools),
            renderer.answer_ids(item.reference),
            item.reference,
        )
        for item in items
    ]


def _suite_row(
    item: str, cluster: str, ids: list[int], reference_ids: list[int], reference: str
) -> SuiteRow:
    return SuiteRow(
        item=item,
        cluster=cluster,
        prompt_ids=ids,
        reference_ids=reference_ids,
        reference=reference,
    )


def _ids(
    renderer: Renderer, messages: Any, tools: Any, template_args: Any, refused: Counter[str]
) -> list[int] | None:
    try:
        return renderer.prompt_ids(messages, tools=tools, template_args=template_args)
    except RenderError:
        refused["not_rendered"] += 1
        return None


def _facts(
    gathered: _Gathered, version: PolicyVersion, as_of: datetime, refused: Mapping[str, int]
) -> dict[str, Any]:
    """What the manifest says beside the files' hashes. Only facts that the input decides."""
    golden = gathered.golden.sha256[:12] if gathered.golden else None
    return {
        "model": version.model,
        "policy_version": version.version,
        "policy_sha256": version.sha256,
        "as_of": as_of.isoformat(),
        "code": __version__,
        "suites": {
            "fresh": fresh_suite(gathered.current),
            "golden": f"golden:{golden}" if golden else None,
        },
        "refused": {**gathered.selection.refused, **gathered.split.left_out, **refused},
    }


def _lineage(gathered: _Gathered, contents: Contents) -> list[dict[str, str | None]]:
    """Which events each row of the snapshot came from, whom they are of, and their group.

    Examples that could be used but are in no file (too long, or held out for a later version) are
    listed as `unused`, so that they are not taken for new ones again.
    """
    sides = dict.fromkeys((row.feedback for row in contents.train), "train")
    sides |= dict.fromkeys((row.item for row in contents.fresh), "holdout")
    usable = [(row[0], row[1]) for row in (*gathered.split.train, *gathered.split.holdout)]
    return [
        {
            "side": sides.get(example.feedback, "unused"),
            "interaction": example.interaction,
            "feedback": example.feedback,
            "user": example.author,
            "group": group,
        }
        for example, group in usable
    ]
