"""Finds what is a person's, marks what was learnt from it, and takes the rows out.

Each method is one transaction and may be repeated: a killed daemon does the same again.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from adaptd.daemon.domain.erasures import Erasure, ErasureState, Person, pseudonym
from adaptd.daemon.domain.states import AdapterState, RunState
from adaptd.daemon.domain.words import matcher_of
from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.examples.files import unseal
from adaptd.daemon.store.lifecycle.adapters import move_adapter
from adaptd.daemon.store.lifecycle.runs import move_run
from adaptd.daemon.store.lifecycle.transitions import record_transition
from adaptd.daemon.store.privacy.erasures import move_erasure
from adaptd.daemon.store.privacy.person_letters import (
    PersonLetters,
    blank_letters,
    find_letters,
    told_of,
)

_SQL = statements("erasures")
_ACTOR = "erasure"

_KEYS_TOLD = 1000  # of one snapshot, in the evidence
_PREVIEW = "preview"


class LineageRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a snapshot that came from the person."""

    snapshot_id: str
    side: str
    interaction: str
    feedback: str
    group: str


class SnapshotFiles(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot's directory and the rows of it that have to go."""

    snapshot_id: str
    path: str
    rows: list[LineageRow]


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter as far as its descent goes."""

    name: str
    model: str
    state: AdapterState
    path: str
    parent: str | None = None
    snapshot_id: str | None = None
    run_id: str | None = None
    tainted_by: str | None = None


class RunFiles(msgspec.Struct, frozen=True, kw_only=True):
    run_id: str
    state: RunState
    snapshot_id: str | None = None
    directory: str | None = None


class ForgettingStore:
    """The database's part of an erasure."""

    def __init__(self, database: Database, secret: str) -> None:
        """`secret`: hex, derived for erasures; see `pseudonym`."""
        self._database = database
        self._secret = secret

    async def collect(self, erasure: Erasure, person: Person, *, now: datetime) -> Erasure:
        """Find what is theirs, bar its return, taint what learnt from it, stop runs that do."""

        def work(cursor: Connection) -> Erasure:
            told = _find(cursor, erasure.erasure_id, person)
            self._bar(cursor, erasure)
            told |= self._taint(cursor, erasure.erasure_id, person, now)
            return move_erasure(cursor, erasure.erasure_id, ErasureState.COLLECTED, told, now=now)

        return await self._database.write(work)

    async def preview(self, person: Person) -> dict[str, Any]:
        """What `collect` would find; nothing stays of it."""

        def work(cursor: Connection) -> dict[str, Any]:
            told = _find(cursor, _PREVIEW, person)
            lineage = _lineage(cursor, _PREVIEW, person)
            trained = {row.snapshot_id for row in lineage if row.side == "train"}
            told["snapshots"] = sorted({row.snapshot_id for row in lineage})
            told["versions"] = sorted(v.name for v in _descent(_versions(cursor), trained))
            told |= told_of(cursor, _letters(cursor, _PREVIEW, person))
            raise _Undone(told)

        try:
            return await self._database.write(work)
        except _Undone as undone:
            return undone.told

    async def files_of(self, erasure_id: str, person: Person) -> list[SnapshotFiles]:
        """Snapshots that hold rows of the person, those of runs that ended meanwhile too."""
        return await self._database.read(lambda c: _files(c, erasure_id, person))

    async def runs_of(self, erasure_id: str) -> list[RunFiles]:
        """Runs whose directories may hold what was learnt from the person."""
        return await self._database.read(lambda c: _runs(c, erasure_id))

    async def trained_on(self, snapshot_id: str) -> list[Version]:
        """Versions whose probes were taken from a snapshot."""
        found = await self._database.read(_versions)
        return [version for version in found if version.snapshot_id == snapshot_id]

    async def drop_scores(self, items: Sequence[str]) -> None:
        """Forget what versions scored on some items of a suite."""

        def work(cursor: Connection) -> None:
            cursor.execute(_SQL["drop_scores"], {"items": list(items)})

        await self._database.write(work)

    async def texts(self, erasure_id: str) -> list[dict[str, Any]]:
        """Conversations of theirs with the requests in them, and the alias asked."""
        values = {"erasure_id": erasure_id}
        return await self._database.read(lambda c: rows(c, _SQL["texts_of_person"], **values))

    async def texts_beside(self, members: Sequence[str]) -> list[dict[str, Any]]:
        """Requests of other conversations in the groups that some members belong to."""
        return await self._database.read(lambda c: _beside(c, members))

    async def remove_rows(
        self, erasure_id: str, person: Person, *, members: Sequence[str], now: datetime
    ) -> Erasure | None:
        """Take every row of theirs out. None where a snapshot was built with them meanwhile.

        `members` are keys of holdout groups that nobody else has.
        """

        def work(cursor: Connection) -> Erasure | None:
            if _new_snapshots(cursor, erasure_id, person):
                return None
            letters = _letters(cursor, erasure_id, person)
            told = told_of(cursor, letters)
            blank_letters(cursor, letters)
            told["policies"] = rows(cursor, _SQL["policies_naming"], user=person.user)
            values = {"user": person.user, "tenant": person.tenant}
            cursor.execute(_SQL["drop_lineage"], values | {"erasure_id": erasure_id})
            for table in ("interactions", "feedback"):
                cursor.execute(_SQL[f"drop_{table}"], {"erasure_id": erasure_id})
            unseal(cursor)
            cursor.execute(_SQL["drop_members"], {"members": list(members)})
            told["mentions"] = rows(cursor, _SQL["mentions"], user=person.user)[0]
            cursor.execute(_SQL["drop_work"], {"erasure_id": erasure_id})
            return move_erasure(cursor, erasure_id, ErasureState.REWRITING, told, now=now)

        return await self._database.write(work)

    async def collect_again(self, erasure_id: str, *, now: datetime) -> None:
        """Go back to the first step: more of theirs came to light."""

        def work(cursor: Connection) -> None:
            move_erasure(cursor, erasure_id, ErasureState.REQUESTED, {}, now=now)

        await self._database.write(work)

    async def rollouts_of_tainted(self) -> list[str]:
        """Rollouts on their way whose version is tainted."""
        found = await self._database.read(lambda c: rows(c, _SQL["rollouts_on"]))
        return [row["rollout_id"] for row in found]

    async def settle_tainted(self) -> list[Version]:
        """Taint what was made of tainted versions, and take out of use what need not serve.

        Returns the versions whose files may go.
        """
        return await self._database.write(self._settle)

    async def mark_erased(self, name: str) -> None:
        """A tainted version's files are gone."""

        def work(cursor: Connection) -> None:
            reason = "its files are gone: it was trained on an erased person"
            move_adapter(cursor, name, AdapterState.ERASED, actor=_ACTOR, reason=reason)

        await self._database.write(work)

    def _bar(self, cursor: Connection, erasure: Erasure) -> None:
        values = {"erasure_id": erasure.erasure_id}
        cursor.execute(_SQL["drop_found_tombstones"], values)
        secret = {"secret": self._secret, "until": erasure.barred_until}
        cursor.execute(_SQL["add_tombstones"], values | secret)

    def _taint(
        self, cursor: Connection, erasure_id: str, person: Person, now: datetime
    ) -> dict[str, Any]:
        by_snapshot: dict[str, list[LineageRow]] = defaultdict(list)
        for row in _lineage(cursor, erasure_id, person):
            by_snapshot[row.snapshot_id].append(row)
        evidence = {key: self._evidence(found) for key, found in by_snapshot.items()}
        for snapshot_id, found in evidence.items():
            values = {"snapshot_id": snapshot_id, "erasure_id": erasure_id}
            told = found | {"row_keys": msgspec.json.encode(found["row_keys"]).decode()}
            cursor.execute(_SQL["add_erased_snapshot"], values | told)
        trained = {key for key, found in evidence.items() if found["train_rows"]}
        tainted = _descent(_versions(cursor), trained)
        for version in tainted:
            _mark(cursor, version, erasure_id, evidence)
        names = [version.name for version in tainted]
        stopped = _stop_runs(cursor, list(evidence), names, now)
        return {"snapshots": sorted(evidence), "versions": sorted(names), "runs_stopped": stopped}

    def _evidence(self, found: Sequence[LineageRow]) -> dict[str, Any]:
        """How many rows, and pseudonyms of them: who has an id and the key can tell them."""
        keys = [pseudonym(self._secret, "row", f"{r.interaction}/{r.feedback}") for r in found]
        trained = sum(row.side == "train" for row in found)
        return {
            "train_rows": trained,
            "other_rows": len(found) - trained,
            "row_keys": sorted(keys)[:_KEYS_TOLD],
        }

    def _settle(self, cursor: Connection) -> list[Version]:
        for row in rows(cursor, _SQL["late_versions"]):
            version = next(v for v in _versions(cursor) if v.name == row["name"])
            _mark(cursor, version, row["erasure_id"], {})
        busy = {row["candidate"] for row in rows(cursor, _SQL["rollouts_on"])}
        versions = [v for v in _versions(cursor) if v.tainted_by]
        serving = {v.model for v in versions if v.state == AdapterState.LIVE}
        free: list[Version] = []
        for version in versions:
            needed = version.state == AdapterState.LAST_GOOD and version.model in serving
            if version.state in (AdapterState.LIVE, AdapterState.CANARY, AdapterState.ERASED):
                continue
            if version.name in busy or needed:
                continue
            reason = "it was trained on an erased person, and nobody needs it"
            move_adapter(cursor, version.name, AdapterState.TAINTED, actor=_ACTOR, reason=reason)
            free.append(version)
        return free


class _Undone(Exception):  # noqa: N818 - carries a preview out of a transaction that is rolled back
    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__()
        self.told = told


def _find(cursor: Connection, erasure_id: str, person: Person) -> dict[str, Any]:
    """Fill the work table with what is theirs; say how much, and where it stands in Kafka."""
    key = {"erasure_id": erasure_id}
    who = key | {"user": person.user, "tenant": person.tenant}
    cursor.execute(_SQL["drop_found"], key)
    for what in ("conversations", "interactions"):
        cursor.execute(_SQL[f"find_{what}"], who)
    cursor.execute(_SQL["find_feedback"], who)
    counted = {row["kind"]: row["found"] for row in rows(cursor, _SQL["count_work"], **key)}
    others = rows(cursor, _SQL["count_others"], **key, user=person.user)[0]["found"]
    return {
        "interactions": counted.get("interaction", 0),
        "feedback": counted.get("feedback", 0),
        "conversations": counted.get("conversation", 0),
        "turns_of_others": others,
        "kafka": rows(cursor, _SQL["log_ranges"], **key),
    }


def _letters(cursor: Connection, erasure_id: str, person: Person) -> PersonLetters:
    words = {row["value"] for row in rows(cursor, _SQL["work_of"], erasure_id=erasure_id)}
    return find_letters(cursor, erasure_id, matcher_of(words, person.user))


def _lineage(cursor: Connection, erasure_id: str, person: Person) -> list[LineageRow]:
    values = {"erasure_id": erasure_id, "user": person.user, "tenant": person.tenant}
    return [LineageRow(**row) for row in rows(cursor, _SQL["affected_rows"], **values)]


def _files(cursor: Connection, erasure_id: str, person: Person) -> list[SnapshotFiles]:
    by_snapshot: dict[str, list[LineageRow]] = defaultdict(list)
    for row in _lineage(cursor, erasure_id, person):
        by_snapshot[row.snapshot_id].append(row)
    found = rows(cursor, _SQL["snapshot_paths"], snapshots=list(by_snapshot))
    return [SnapshotFiles(**row, rows=by_snapshot[row["snapshot_id"]]) for row in found]


def _runs(cursor: Connection, erasure_id: str) -> list[RunFiles]:
    snapshots = [
        row["snapshot_id"]
        for row in rows(cursor, _SQL["erased_snapshots_of"], erasure_id=erasure_id)
    ]
    versions = [v.name for v in _versions(cursor) if v.tainted_by]
    found = rows(cursor, _SQL["runs_on"], snapshots=snapshots, versions=versions)
    return [msgspec.convert(row, RunFiles) for row in found]


def _versions(cursor: Connection) -> list[Version]:
    return [msgspec.convert(row, Version) for row in rows(cursor, _SQL["all_versions"])]


def _descent(versions: Sequence[Version], snapshots: Collection[str]) -> list[Version]:
    """Versions trained on some snapshots, and all that were continued from those."""
    found = [version for version in versions if version.snapshot_id in snapshots]
    names = {version.name for version in found}
    while more := [v for v in versions if v.parent in names and v.name not in names]:
        found += more
        names |= {version.name for version in more}
    return found


def _mark(
    cursor: Connection,
    version: Version,
    erasure_id: str,
    evidence: Mapping[str, Mapping[str, Any]],
) -> None:
    """Taint a version with the rows that made it so. It serves on where it serves."""
    if version.tainted_by is not None:
        return
    cursor.execute(_SQL["taint_version"], {"erasure_id": erasure_id, "name": version.name})
    own = evidence.get(version.snapshot_id or "")
    why = "trained on an erased person" if own else "continued from a tainted version"
    told = {"erasure": erasure_id, "snapshot": version.snapshot_id, "parent": version.parent}
    record_transition(
        cursor,
        "adapter",
        version.name,
        before=version.state,
        after=f"{version.state} (tainted)",
        actor=_ACTOR,
        reason=why,
        evidence=told | dict(own or {}),
    )


def _stop_runs(
    cursor: Connection, snapshots: list[str], versions: list[str], now: datetime
) -> list[str]:
    found = rows(cursor, _SQL["runs_on"], snapshots=snapshots, versions=versions)
    stopped = [row["run_id"] for row in found if not RunState(row["state"]).is_final]
    reason = "it learns from a person who was erased"
    for run_id in stopped:
        move_run(cursor, run_id, RunState.CANCELLED, actor=_ACTOR, reason=reason, now=now)
    return stopped


def _new_snapshots(cursor: Connection, erasure_id: str, person: Person) -> bool:
    """Whether a snapshot came to hold them after they were looked for."""
    known = rows(cursor, _SQL["erased_snapshots_of"], erasure_id=erasure_id)
    seen = {row["snapshot_id"] for row in known}
    return any(row.snapshot_id not in seen for row in _lineage(cursor, erasure_id, person))


def _beside(cursor: Connection, members: Sequence[str]) -> list[dict[str, Any]]:
    groups = [row["group"] for row in rows(cursor, _SQL["groups_of"], members=list(members))]
    values = {"groups": groups, "members": list(members)}
    others = rows(cursor, _SQL["conversations_in_groups"], **values)
    names = [row["member"].removeprefix("c:") for row in others]
    return rows(cursor, _SQL["texts_of_conversations"], conversations=names)
