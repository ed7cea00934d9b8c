"""Builder of snapshots: export, policy SQL in the sandbox, select, split, render."""

import asyncio
import hashlib
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from adaptd import __version__
from adaptd.daemon.dataset.groups import Split, message_key, split_examples
from adaptd.daemon.dataset.prompts import last_words
from adaptd.daemon.dataset.render import Renderer
from adaptd.daemon.dataset.rows import Rendered, render
from adaptd.daemon.dataset.select import Selection, select_examples
from adaptd.daemon.dataset.snapshot import write_snapshot
from adaptd.daemon.domain.triggers import UsableExamples
from adaptd.daemon.policy.book import PolicyVersion
from adaptd.daemon.policy.files import Unreadable
from adaptd.daemon.policy.golden import Golden, read_golden
from adaptd.daemon.policy.model import MIN_HOLDOUT_GROUPS, Holdout
from adaptd.daemon.store.examples.files import ExampleFiles
from adaptd.daemon.store.examples.sandbox import Sandbox, SandboxError
from adaptd.daemon.store.lifecycle.snapshots import (
    HoldoutStore,
    HoldoutVersion,
    Snapshot,
    SnapshotStore,
    fresh_suite,
)
from adaptd.daemon.wire.errors import AdaptdError, PolicyError, RefusedError

_ROWS_AT_ONCE = 1024
# The word `tenant` inside a text or a comment names no tenant.
_LITERAL_OR_COMMENT = re.compile(r"'[^']*'|--[^\n]*|/\*.*?\*/", re.DOTALL)


class NotEnoughError(AdaptdError):
    """Too few examples to train or to measure on."""


class _SnapshotParts(msgspec.Struct, frozen=True):
    """Parts of a snapshot. `retired`: the version before `current` with too few items left."""

    selection: Selection
    split: Split
    golden: Golden | None
    current: int
    retired: int | None
    rendered: Rendered


class SnapshotBuilder:
    """Builds snapshots; the same stored events and policy version give the same bytes."""

    def __init__(
        self,
        *,
        examples: ExampleFiles,
        snapshots: SnapshotStore,
        holdouts: HoldoutStore,
        sandbox: Sandbox,
        bases: Mapping[str, Path],
        directory: Path,
        key: bytes,
    ) -> None:
        """`key`, derive(secret, "holdouts"), decides the side of a new group."""
        self._key = key
        self._examples = examples
        self._snapshots = snapshots
        self._holdouts = holdouts
        self._sandbox = sandbox
        self._bases = bases
        self._directory = directory
        self._renderers: dict[Path, Renderer] = {}
        self._exports = f".examples-{secrets.token_hex(4)}-"  # of this process

    async def preview(self, version: PolicyVersion, *, as_of: datetime) -> UsableExamples:
        """Count the examples of a build now, rendering included. Puts no group on a side.

        Raises:
            AdaptdError: the policy's expression, golden file or base cannot be used.
        """
        gathered = await self._gather_parts(version, as_of)
        seen = await self._snapshots.seen_feedback(version.model)
        usable = [row[0] for row in (*gathered.split.train, *gathered.split.holdout)]
        return UsableExamples(
            examples=len(usable),
            new_examples=sum(example.feedback not in seen for example in usable),
            train=len(gathered.rendered.train),
            holdout_items=len(gathered.rendered.fresh),
            holdout_groups=gathered.rendered.groups,
        )

    async def build(self, run_id: str, version: PolicyVersion, *, as_of: datetime) -> Snapshot:
        """Make a run's snapshot. Safe to repeat after a kill at any line.

        1. Gather: select, split and render (`_gather_parts`).
        2. Check that enough is on both sides.
        3. Record the side of new groups for good; close a holdout version that is used up.
        4. Write the directory, whole or not at all.
        5. Store the snapshot with its lineage. One with events erased since is refused and removed.

        Raises:
            NotEnoughError: no training rows, or fewer held out than the policy asks.
            AdaptdError: the policy's expression, golden file or base cannot be used.
            OSError: the directory cannot be written.
        """
        gathered = await self._gather_parts(version, as_of)
        _check_enough(gathered, version)
        await self._holdouts.assign(version.model, gathered.split.new, now=as_of)
        if gathered.retired is not None:
            await self._holdouts.close(version.model, gathered.retired, now=as_of)
        directory = self._directory / f"snapshot-{run_id}"
        facts = _manifest_facts(gathered, version, as_of) | {"holdout_key": fingerprint(self._key)}
        contents = gathered.rendered.contents
        manifest = await asyncio.to_thread(write_snapshot, directory, contents, facts)
        snapshot = _make_snapshot(gathered, version, as_of, directory, manifest)
        try:
            await self._snapshots.add(snapshot, _list_lineage(gathered))
        except RefusedError:
            await asyncio.to_thread(shutil.rmtree, directory)
            raise
        return snapshot

    def clean(self) -> None:
        """Remove leftovers of killed builds and exports. Call while no build runs."""
        for leftover in self._directory.glob(".*-*"):
            # A preview of this process may be using its export just now.
            if not leftover.name.startswith(self._exports):
                shutil.rmtree(leftover, ignore_errors=True)

    async def _gather_parts(self, version: PolicyVersion, as_of: datetime) -> _SnapshotParts:
        table = await self._select_rows(version, as_of)
        _check_tenants(table, version)
        model, holdout = version.model, version.policy.curate.holdout
        golden = await asyncio.to_thread(_read_golden, version)
        current, joining = await self._holdouts.current(model, now=as_of)
        known = await self._holdouts.members(model)
        renderer = self._find_renderer(version)

        def work() -> _SnapshotParts:
            selection = select_examples(_iterate_rows(table), version.policy.select, as_of=as_of)
            split = split_examples(
                selection.examples,
                known,
                _list_golden_keys(golden),
                share=holdout.share,
                joining=joining,
                key=self._key,
            )
            chosen = choose_version(current, joining, split, holdout)
            rendered = render(
                split, golden, renderer, version=chosen, max_tokens=version.policy.train.max_tokens
            )
            retired = current.version if chosen != current.version else None
            return _SnapshotParts(selection, split, golden, chosen, retired, rendered)

        return await asyncio.to_thread(work)  # rendering computes for seconds: not on the loop

    async def _select_rows(self, version: PolicyVersion, as_of: datetime) -> pa.Table:
        """Export the alias's judged examples and apply the policy's `where`."""
        where = version.policy.select.where
        self._directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=self._exports, dir=self._directory) as folder:
            found = await self._examples.gather(version.model, as_of=as_of, into=Path(folder))
            try:
                return await self._sandbox.select(found, where, as_of=as_of, judged_only=True)
            except SandboxError as error:
                place = version.where("select", "where")
                problem = f"select.where: {error.problem}"
                raise PolicyError(place, problem, error.remedy) from error

    def _find_renderer(self, version: PolicyVersion) -> Renderer:
        base = self._bases.get(version.policy.base)
        if base is None:
            problem = f"base is {version.policy.base}, which the settings do not know"
            raise PolicyError(version.where("base"), problem, "Add it to [bases]")
        if base not in self._renderers:
            self._renderers[base] = Renderer(base)
        return self._renderers[base]


def choose_version(current: HoldoutVersion, joining: int, split: Split, holdout: Holdout) -> int:
    """Choose the holdout version to measure on: the current one while it holds enough.

    Groups leave a policy's window as time goes by. A used version that cannot fill up any more
    gives way to its successor once that holds enough. Else it would stop every run for ever.
    """
    if current.version == joining or _is_enough(split, current.version, holdout):
        return current.version
    return joining if _is_enough(split, joining, holdout) else current.version


def _is_enough(split: Split, version: int, holdout: Holdout) -> bool:
    groups = [group for _, group, of in split.holdout if of == version]
    return len(groups) >= holdout.at_least and len(set(groups)) >= MIN_HOLDOUT_GROUPS


def names_tenant(where: str) -> bool:
    """Say whether a checked expression names the tenants that it wants."""
    return re.search(r"\btenant\b", _LITERAL_OR_COMMENT.sub(" ", where), re.IGNORECASE) is not None


def _check_tenants(table: pa.Table, version: PolicyVersion) -> None:
    # Texts of one tenant never train answers of another, unless the policy says so.
    tenants = [name for name in table["tenant"].unique().to_pylist() if name is not None]
    if len(tenants) > 1 and not names_tenant(version.policy.select.where):
        place = version.where("select", "where")
        problem = f"examples of {len(tenants)} tenants meet ({', '.join(sorted(tenants)[:3])})"
        remedy = "Say in select.where whose are learnt from, as in tenant = 'app', for this alias"
        raise PolicyError(place, problem, remedy)


def _iterate_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    # A part at a time: as Python objects rows take several times their size.
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        yield from batch.to_pylist(maps_as_pydicts="lossy")


def _read_golden(version: PolicyVersion) -> Golden | None:
    name = version.policy.curate.holdout.golden
    if name is None:
        return None
    try:
        golden = read_golden(Path(version.path).parent, name)
    except Unreadable as error:
        place = version.where("curate", "holdout", "golden")
        raise PolicyError(
            place, f"curate.holdout.golden: {error.args[0]}", error.args[1]
        ) from error
    if golden.problems:
        first = golden.problems[0]
        raise PolicyError(f"{golden.path}:{first.line}", first.what, first.remedy)
    return golden


def _list_golden_keys(golden: Golden | None) -> list[str]:
    """Return the member keys whose groups are golden."""
    return [message_key(last_words(item.messages)) for item in (golden.items if golden else ())]


def _check_enough(gathered: _SnapshotParts, version: PolicyVersion) -> None:
    rendered, wanted = gathered.rendered, version.policy.curate.holdout.at_least
    if len(rendered.fresh) < wanted or rendered.groups < MIN_HOLDOUT_GROUPS:
        found = f"{len(rendered.fresh)} items in {rendered.groups} groups are held out"
        remedy = f"Wait for {wanted} in {MIN_HOLDOUT_GROUPS} groups, or change curate.holdout"
        raise NotEnoughError(version.where("curate", "holdout"), found, remedy)
    if not rendered.train:
        found = "no example is left to train on"
        raise NotEnoughError(version.where("select"), found, "Widen the policy")


def fingerprint(key: bytes) -> str:
    """Return digits that tell keys apart and tell no key: equal sides need equal keys."""
    return hashlib.blake2b(b"fingerprint", digest_size=4, key=key).hexdigest()


def _manifest_facts(
    gathered: _SnapshotParts, version: PolicyVersion, as_of: datetime
) -> dict[str, Any]:
    """Return the manifest's facts beside the files' hashes. Only the input decides them."""
    golden = gathered.golden.sha256 if gathered.golden else None
    refused = [gathered.selection.refused, gathered.split.left_out, gathered.rendered.refused]
    return {
        "model": version.model,
        "policy_version": version.version,
        "policy_sha256": version.sha256,
        "as_of": as_of.isoformat(),
        "code": __version__,
        "golden_sha256": golden,
        "suites": {
            "fresh": fresh_suite(gathered.current),
            "golden": f"golden:{golden[:12]}" if golden else None,
        },
        "refused": {reason: n for part in refused for reason, n in part.items()},
    }


def _make_snapshot(
    gathered: _SnapshotParts,
    version: PolicyVersion,
    as_of: datetime,
    directory: Path,
    manifest: dict[str, Any],
) -> Snapshot:
    contents = gathered.rendered.contents
    return Snapshot(
        snapshot_id=directory.name,
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


def _list_lineage(gathered: _SnapshotParts) -> list[dict[str, str | None]]:
    """List the events and the person behind each row of the snapshot, and its group.

    Usable examples that are in no file (too long, or held out for a later version) are listed as
    `unused`, so that they do not count as new again.
    """
    sides = dict.fromkeys((row.feedback for row in gathered.rendered.train), "train")
    sides |= dict.fromkeys((row.item for row in gathered.rendered.fresh), "holdout")
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
