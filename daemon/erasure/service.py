"""Take erasures from request to done; all that wait share one new store file.

1. requested → collected: find rows, files and versions of the person, and taint what learnt.
2. collected → files: clean snapshots, probes and run directories.
3. files → rewriting: clear spool and home, remove the rows.
4. rewriting → done: write the store anew; only that removes the bytes from the disk.

Each step is one transaction, or file work that may be repeated. The state says which steps are
done, so that a killed daemon continues with the next.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog

from adaptd.daemon.dataset.groups import message_key
from adaptd.daemon.dataset.messages import RenderError
from adaptd.daemon.dataset.prompts import is_conversation, last_words
from adaptd.daemon.domain.erasures import Erasure, ErasureState, Person
from adaptd.daemon.domain.states import RunState
from adaptd.daemon.domain.words import Matcher, matcher_of
from adaptd.daemon.erasure.leftovers import lost_snapshots, remove_run, remove_tree
from adaptd.daemon.erasure.outside import beyond_reach
from adaptd.daemon.erasure.search import clear_home, search_folder
from adaptd.daemon.erasure.snapshot_files import Gone, look, strip_probes, strip_snapshot
from adaptd.daemon.erasure.spool_files import clear_spool
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.examples.files import ExampleFiles
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.store.lifecycle.snapshots import SnapshotStore
from adaptd.daemon.store.privacy.erasures import ErasureStore
from adaptd.daemon.store.privacy.person_rows import PersonRowsStore, SnapshotFiles
from adaptd.daemon.wire.clock import utc_now
from adaptd.daemon.wire.errors import AdaptdError, RefusedError

_ACTOR = "erasure"
_EXAMPLES = "examples"  # below the home folder: files for sandboxed children
_log = structlog.get_logger(__name__)


class Rollouts(Protocol):
    """Ends rollouts."""

    async def act_on_rollout(
        self, rollout_id: str, action: Any, *, reason: str, actor: str
    ) -> Any: ...


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Paths and times of erasures. `rewrite_every_s`: between two new store files.

    `letters_topic`: where dead letters are published to now.
    """

    home: Path
    spool_dir: Path
    policies_dir: Path
    barred_s: float
    rewrite_every_s: float
    tick_s: float
    letters_topic: str | None = None


class ErasureStores(msgspec.Struct, frozen=True, kw_only=True):
    """The repositories an erasure works on."""

    database: Database
    examples: ExampleFiles
    erasures: ErasureStore
    people: PersonRowsStore
    snapshots: SnapshotStore
    runs: RunStore


class ErasureService:
    """Implements `ErasurePort`, and does the work in one loop."""

    def __init__(
        self,
        stores: ErasureStores,
        places: Places,
        *,
        rollouts: Rollouts,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._stores = stores
        self._places = places
        self._rollouts = rollouts
        self._clock = clock
        self._wake = asyncio.Event()
        self._rewritten = -float("inf")

    async def begin(self, person: Person, *, reason: str, actor: str) -> Erasure:
        """See `ErasurePort`."""
        if matcher_of([], person.user).finds(reason.encode()):
            remedy = "Give one that does not: it is kept for good"
            raise RefusedError("reason", "it names the person", remedy)
        now = self._clock()
        erasure = await self._stores.erasures.add(
            person,
            reason=reason,
            actor=actor,
            now=now,
            barred_until=now + timedelta(seconds=self._places.barred_s),
        )
        _log.info("erasure_requested", erasure=erasure.erasure_id)
        self._wake.set()
        return erasure

    async def preview(self, person: Person) -> dict[str, Any]:
        """See `ErasurePort`."""
        found = await self._stores.people.preview(person)
        golden = matcher_of([], person.user)
        found["golden"] = await asyncio.to_thread(search_folder, self._places.policies_dir, golden)
        return found | {"outside": self._describe_outside(found)}

    async def lift(self, person: Person, *, reason: str, actor: str) -> int:
        """See `ErasurePort`."""
        return await self._stores.erasures.lift(
            person, reason=reason, actor=actor, now=self._clock()
        )

    async def list(self, limit: int = 50) -> list[Erasure]:
        """See `ErasurePort`."""
        return await self._stores.erasures.list(limit)

    async def get(self, erasure_id: str) -> Erasure:
        """See `ErasurePort`."""
        return await self._stores.erasures.get(erasure_id)

    async def run(self) -> None:
        """Work until cancelled. All state is in the store, so a restart continues it."""
        while True:
            self._wake.clear()
            await self.tick()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._places.tick_s):
                    await self._wake.wait()

    async def tick(self) -> None:
        """Take every erasure as far as it goes now. Safe to repeat."""
        await self._settle_tainted()
        for erasure in await self._stores.erasures.unfinished():
            await self._advance_erasure(erasure)
        waiting = [
            erasure
            for erasure in await self._stores.erasures.unfinished()
            if erasure.state is ErasureState.REWRITING
        ]
        if waiting:
            await self._rewrite_store(waiting)

    async def _advance_erasure(self, erasure: Erasure) -> None:
        """Advance step by step up to the rewriting.

        What cannot be done now is noted and retried.
        """
        steps = {
            ErasureState.REQUESTED: self._collect_traces,
            ErasureState.COLLECTED: self._clean_files,
            ErasureState.FILES: self._remove_rows,
        }
        try:
            while (step := steps.get(erasure.state)) is not None:
                began = erasure.state
                erasure = await step(erasure)
                _log.info("erasure_moved", erasure=erasure.erasure_id, state=erasure.state)
                if erasure.state is began:
                    return
        except (AdaptdError, OSError) as error:
            await self._note_wait(erasure, _describe_error(error))

    async def _collect_traces(self, erasure: Erasure) -> Erasure:
        person = await self._stores.erasures.person(erasure.erasure_id)
        return await self._stores.people.collect(erasure, person, now=self._clock())

    async def _clean_files(self, erasure: Erasure) -> Erasure:
        stores, erasure_id = self._stores, erasure.erasure_id
        person = await stores.erasures.person(erasure_id)
        await self._settle_tainted()
        if (busy := await self._remove_runs(erasure_id)) is not None:
            return await self._note_wait(erasure, f"the trainer of {busy} to end")
        for files in await stores.people.files_of(erasure_id, person):
            await self._clean_snapshot(files)
        await self._remove_lost_snapshots()
        return await stores.erasures.move(erasure_id, ErasureState.FILES, now=self._clock())

    async def _clean_snapshot(self, files: SnapshotFiles) -> None:
        """Clean one snapshot.

        Scores and probes go first: the snapshot's own rows tell which they are.
        """
        people = self._stores.people
        gone: Gone = await asyncio.to_thread(look, files)
        await people.drop_scores(gone.scored)
        for version in await people.trained_on(files.snapshot_id):
            await asyncio.to_thread(strip_probes, Path(version.path), gone)
        await asyncio.to_thread(strip_snapshot, files, gone)

    async def _remove_runs(self, erasure_id: str) -> str | None:
        """Remove what training left on disk. Returns a run whose trainer is still at work."""
        for run in await self._stores.people.runs_of(erasure_id):
            directory = Path(run.directory) if run.directory else None
            if directory and not await asyncio.to_thread(remove_run, directory):
                return run.run_id
        return None

    async def _remove_lost_snapshots(self) -> None:
        """Directories of builds that were refused or killed."""
        folder = self._places.home / "snapshots"
        known = await self._stores.snapshots.ids()
        building = await self._stores.runs.in_state(RunState.BUILDING)
        busy = [run.run_id for run in building]
        for path in await asyncio.to_thread(lost_snapshots, folder, known, busy):
            await asyncio.to_thread(remove_tree, path)

    async def _remove_rows(self, erasure: Erasure) -> Erasure:
        stores, erasure_id = self._stores, erasure.erasure_id
        person = await stores.erasures.person(erasure_id)
        words = await stores.erasures.words(erasure_id)
        matcher = matcher_of(words, person.user)
        if not await asyncio.to_thread(clear_spool, self._places.spool_dir, matcher):
            return await self._note_wait(erasure, "the gateway to send what it holds of the person")
        if (busy := await self._remove_runs(erasure_id)) is not None:
            return await self._note_wait(erasure, f"the trainer of {busy} to end")
        if building := await stores.runs.in_state(RunState.BUILDING):
            return await self._note_wait(
                erasure, f"the dataset of {building[0].run_id} to be built"
            )
        await self._remove_lost_snapshots()
        told = await self._search_files(matcher)
        await stores.erasures.move(erasure_id, ErasureState.FILES, findings=told, now=self._clock())
        members = await self._list_members(erasure_id)
        done = await stores.people.remove_rows(
            erasure_id, person, members=members, now=self._clock()
        )
        if done is None:
            await stores.people.collect_again(erasure_id, now=self._clock())
        return await stores.erasures.get(erasure_id)

    async def _search_files(self, matcher: Matcher) -> dict[str, Any]:
        """Clear adaptd's own folder and search the operator's."""
        places = self._places
        skip = frozenset(
            [
                *places.home.glob("store.duckdb*"),
                *places.home.glob("adapters/*/adapter_model.safetensors"),
                places.spool_dir,
                places.home / _EXAMPLES,
            ]
        )
        found = await asyncio.to_thread(clear_home, places.home, matcher, skip=skip)
        golden = await asyncio.to_thread(search_folder, places.policies_dir, matcher)
        old = sorted(str(store) for store in places.home.glob("store.duckdb.replaced-*"))
        told = {"golden": golden, "left": found.places, "log_lines": found.blotted}
        return told | {"replaced": [store for store in old if not store.endswith(".wal")]}

    async def _list_members(self, erasure_id: str) -> "list[str]":
        """Keys of holdout groups that come from the person alone."""
        people = self._stores.people
        theirs = _member_keys(await people.texts(erasure_id))
        beside = _member_keys(await people.texts_beside(sorted(theirs)))
        return sorted(key for key in theirs if key.startswith("c:") or key not in beside)

    async def _rewrite_store(self, waiting: "list[Erasure]") -> None:
        """One new file for all that wait."""
        places = self._places
        await self._stores.examples.sweep()  # taken back with the rows
        if time.monotonic() < self._rewritten + places.rewrite_every_s:
            for erasure in waiting:
                await self._note_wait(erasure, "the next rewrite of the store")
            return
        began = time.monotonic()
        try:
            pause = await self._stores.database.rewrite()
        except (AdaptdError, OSError) as error:
            for erasure in waiting:
                await self._note_wait(erasure, _describe_error(error))
            return
        self._rewritten = time.monotonic()
        figures = {"rewrite_s": self._rewritten - began} | pause._asdict()
        _log.info("store_rewritten", erasures=len(waiting), **figures)
        for erasure in waiting:
            told = figures | {"outside": self._describe_outside(erasure.report)}
            await self._stores.erasures.move(
                erasure.erasure_id, ErasureState.DONE, findings=told, now=self._clock()
            )

    def _describe_outside(self, report: Mapping[str, Any]) -> "list[dict[str, str]]":
        told = beyond_reach(report, letters_topic=self._places.letters_topic)
        return msgspec.to_builtins(told)

    async def _settle_tainted(self) -> None:
        """Tainted versions on their way are stopped, and those nobody needs lose their files."""
        reason = "its version learnt from a person who was erased"
        for rollout_id in await self._stores.people.rollouts_of_tainted():
            with suppress(RefusedError):  # it ended meanwhile
                await self._rollouts.act_on_rollout(
                    rollout_id, "abort", reason=reason, actor=_ACTOR
                )
        for version in await self._stores.people.settle_tainted():
            await asyncio.to_thread(remove_tree, Path(version.path))
            await self._stores.people.mark_erased(version.name)
            _log.info("tainted_version_erased", adapter=version.name)

    async def _note_wait(self, erasure: Erasure, what: str) -> Erasure:
        if erasure.waits_for != what:
            _log.warning("erasure_waits", erasure=erasure.erasure_id, waits_for=what)
            await self._stores.erasures.wait(erasure.erasure_id, what, now=self._clock())
        return await self._stores.erasures.get(erasure.erasure_id)


def _member_keys(texts: list[dict[str, Any]]) -> set[str]:
    """The members of holdout groups that some requests bring."""
    found = {f"c:{row['conversation']}" for row in texts}
    for row in texts:
        request = msgspec.json.decode(row["request"]) if row["request"] else {}
        messages = request.get("messages") if isinstance(request, dict) else None
        if messages and is_conversation(messages):
            with suppress(RenderError):
                found.add(message_key(last_words(messages)))
    return found


def _describe_error(error: Exception) -> str:
    return str(error) if isinstance(error, AdaptdError) else error.__class__.__name__
