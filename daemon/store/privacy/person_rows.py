"""Finds a person's rows, taints the versions trained on them, and deletes the rows.

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
from adaptd.daemon.store.lifecycle.rollouts import ACTIVE_STATES
from adaptd.daemon.store.lifecycle.runs import move_run
from adaptd.daemon.store.lifecycle.transitions import record_transition
from adaptd.daemon.store.privacy.erasures import move_erasure
from adaptd.daemon.store.privacy.person_letters import (
    PersonLetters,
    blank_letters,
    find_letters,
    report_letters,
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
    """A snapshot's directory and the rows to remove from it."""

    snapshot_id: str
    path: str
    rows: list[LineageRow]


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter version with its descent."""

    name: str
    model: str
    state: AdapterState
    path: str
    parent: str | None = None
    snapshot_id: str | None = None
    run_id: str | None = None
    tainted_by: str | None = None


class RunFiles(msgspec.Struct, frozen=True, kw_only=True):
    """A run's directory, which may hold the person's rows."""

    run_id: str
    state: RunState
    snapshot_id: str | None = None
    directory: str | None = None


class PersonRowsStore:
    """The database's part of an erasure."""

    def __init__(self, database: Database, secret: str) -> None:
        """`secret`: hex, derived for erasures; see `pseudonym`."""
        self._database = database
        self._secret = secret

    async def collect(self, erasure: Erasure, person: Person, *, now: datetime) -> Erasure:
        """Find the person's rows, bar their return, taint versions, stop runs on them."""

        def work(cursor: Connection) -> Erasure:
            findings = _find_rows(cursor, erasure.erasure_id, person)
            self._bar_found(cursor, erasure)
            findings |= self._taint_versions(cursor, erasure.erasure_id, person, now)
            return move_erasure(
                cursor, erasure.erasure_id, ErasureState.COLLECTED, findings, now=now
            )

        return await self._database.write(work)

    async def preview(self, person: Person) -> dict[str, Any]:
        """Return what `collect` would find; the transaction is rolled back."""

        def work(cursor: Connection) -> dict[str, Any]:
            findings = _find_rows(cursor, _PREVIEW, person)
            lineage = _read_lineage(cursor, _PREVIEW, person)
            trained = {row.snapshot_id for row in lineage if row.side == "train"}
            findings["snapshots"] = sorted({row.snapshot_id for row in lineage})
            findings["versions"] = sorted(
                v.name for v in _find_descent(_read_versions(cursor), trained)
            )
            findings |= report_letters(cursor, _find_letters(cursor, _PREVIEW, person))
            raise _PreviewDone(findings)

        try:
            return await self._database.write(work)
        except _PreviewDone as undone:
            return undone.findings

    async def files_of(self, erasure_id: str, person: Person) -> list[SnapshotFiles]:
        """Return snapshots with rows of the person, those of ended runs too."""
        return await self._database.read(lambda c: _list_files(c, erasure_id, person))

    async def runs_of(self, erasure_id: str) -> list[RunFiles]:
        """Return runs whose directories may hold data trained on the person."""
        return await self._database.read(lambda c: _list_runs(c, erasure_id))

    async def trained_on(self, snapshot_id: str) -> list[Version]:
        """Return versions whose probes were taken from a snapshot."""
        found = await self._database.read(_read_versions)
        return [version for version in found if version.snapshot_id == snapshot_id]

    async def drop_scores(self, items: Sequence[str]) -> None:
        """Delete the scores of all versions on some items of a suite."""

        def work(cursor: Connection) -> None:
            cursor.execute(_SQL["drop_scores"], {"items": list(items)})

        await self._database.write(work)

    async def texts(self, erasure_id: str) -> list[dict[str, Any]]:
        """Return the person's conversations with their requests and aliases."""
        values = {"erasure_id": erasure_id}
        return await self._database.read(lambda c: rows(c, _SQL["texts_of_person"], **values))

    async def texts_beside(self, members: Sequence[str]) -> list[dict[str, Any]]:
        """Return requests of other conversations in the groups of some members."""
        return await self._database.read(lambda c: _texts_beside(c, members))

    async def remove_rows(
        self, erasure_id: str, person: Person, *, members: Sequence[str], now: datetime
    ) -> Erasure | None:
        """Delete every row of the person. None where a snapshot was built with them meanwhile.

        `members` are keys of holdout groups that nobody else has.
        """

        def work(cursor: Connection) -> Erasure | None:
            known = rows(cursor, _SQL["erased_snapshots_of"], erasure_id=erasure_id)
            seen = {row["snapshot_id"] for row in known}
            if any(r.snapshot_id not in seen for r in _read_lineage(cursor, erasure_id, person)):
                return None
            letters = _find_letters(cursor, erasure_id, person)
            findings = report_letters(cursor, letters)
            blank_letters(cursor, letters)
            findings["policies"] = rows(cursor, _SQL["policies_naming"], user=person.user)
            values = {"user": person.user, "tenant": person.tenant}
            cursor.execute(_SQL["drop_lineage"], values | {"erasure_id": erasure_id})
            for table in ("interactions", "feedback"):
                cursor.execute(_SQL[f"drop_{table}"], {"erasure_id": erasure_id})
            unseal(cursor)  # sealed files hold the deleted rows; the service sweeps them
            cursor.execute(_SQL["drop_members"], {"members": list(members)})
            findings["mentions"] = rows(cursor, _SQL["mentions"], user=person.user)[0]
            cursor.execute(_SQL["drop_work"], {"erasure_id": erasure_id})
            return move_erasure(cursor, erasure_id, ErasureState.REWRITING, findings, now=now)

        return await self._database.write(work)

    async def collect_again(self, erasure_id: str, *, now: datetime) -> None:
        """Go back to the first step: there are more rows of the person."""

        def work(cursor: Connection) -> None:
            move_erasure(cursor, erasure_id, ErasureState.REQUESTED, {}, now=now)

        await self._database.write(work)

    async def rollouts_of_tainted(self) -> list[str]:
        """Return active rollouts whose version is tainted."""
        found = await self._database.read(
            lambda c: rows(c, _SQL["rollouts_on"], active=ACTIVE_STATES)
        )
        return [row["rollout_id"] for row in found]

    async def settle_tainted(self) -> list[Version]:
        """Taint versions that descend from tainted ones, and retire those that need not serve.

        Returns the versions whose files may be removed.
        """
        return await self._database.write(self._retire_unneeded)

    async def mark_erased(self, name: str) -> None:
        """Note that a tainted version's files are gone."""

        def work(cursor: Connection) -> None:
            reason = "its files are gone: it was trained on an erased person"
            move_adapter(cursor, name, AdapterState.ERASED, actor=_ACTOR, reason=reason)

        await self._database.write(work)

    def _bar_found(self, cursor: Connection, erasure: Erasure) -> None:
        values = {"erasure_id": erasure.erasure_id}
        cursor.execute(_SQL["drop_found_tombstones"], values)
        secret = {"secret": self._secret, "until": erasure.barred_until}
        cursor.execute(_SQL["add_tombstones"], values | secret)

    def _taint_versions(
        self, cursor: Connection, erasure_id: str, person: Person, now: datetime
    ) -> dict[str, Any]:
        by_snapshot: dict[str, list[LineageRow]] = defaultdict(list)
        for row in _read_lineage(cursor, erasure_id, person):
            by_snapshot[row.snapshot_id].append(row)
        evidence = {key: self._count_rows(found) for key, found in by_snapshot.items()}
        for snapshot_id, found in evidence.items():
            values = {"snapshot_id": snapshot_id, "erasure_id": erasure_id}
            findings = found | {"row_keys": msgspec.json.encode(found["row_keys"]).decode()}
            cursor.execute(_SQL["add_erased_snapshot"], values | findings)
        trained = {key for key, found in evidence.items() if found["train_rows"]}
        tainted = _find_descent(_read_versions(cursor), trained)
        for version in tainted:
            _taint_version(cursor, version, erasure_id, evidence)
        names = [version.name for version in tainted]
        stopped = _stop_runs(cursor, list(evidence), names, now)
        return {"snapshots": sorted(evidence), "versions": sorted(names), "runs_stopped": stopped}

    def _count_rows(self, found: Sequence[LineageRow]) -> dict[str, Any]:
        # Pseudonyms: only a holder of both an id and the key recognises a row.
        keys = [pseudonym(self._secret, "row", f"{r.interaction}/{r.feedback}") for r in found]
        trained = sum(row.side == "train" for row in found)
        return {
            "train_rows": trained,
            "other_rows": len(found) - trained,
            "row_keys": sorted(keys)[:_KEYS_TOLD],
        }

    def _retire_unneeded(self, cursor: Connection) -> list[Version]:
        for row in rows(cursor, _SQL["late_versions"]):
            version = next(v for v in _read_versions(cursor) if v.name == row["name"])
            _taint_version(cursor, version, row["erasure_id"], {})
        busy = {row["candidate"] for row in rows(cursor, _SQL["rollouts_on"], active=ACTIVE_STATES)}
        versions = [v for v in _read_versions(cursor) if v.tainted_by]
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


class _PreviewDone(Exception):  # noqa: N818 - carries a preview out of a transaction that is rolled back
    def __init__(self, findings: dict[str, Any]) -> None:
        super().__init__()
        self.findings = findings


def _find_rows(cursor: Connection, erasure_id: str, person: Person) -> dict[str, Any]:
    """Fill the work table with the person's rows; return their counts and places in Kafka."""
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


def _find_letters(cursor: Connection, erasure_id: str, person: Person) -> PersonLetters:
    words = {row["value"] for row in rows(cursor, _SQL["work_of"], erasure_id=erasure_id)}
    return find_letters(cursor, erasure_id, matcher_of(words, person.user))


def _read_lineage(cursor: Connection, erasure_id: str, person: Person) -> list[LineageRow]:
    values = {"erasure_id": erasure_id, "user": person.user, "tenant": person.tenant}
    return [LineageRow(**row) for row in rows(cursor, _SQL["affected_rows"], **values)]


def _list_files(cursor: Connection, erasure_id: str, person: Person) -> list[SnapshotFiles]:
    by_snapshot: dict[str, list[LineageRow]] = defaultdict(list)
    for row in _read_lineage(cursor, erasure_id, person):
        by_snapshot[row.snapshot_id].append(row)
    found = rows(cursor, _SQL["snapshot_paths"], snapshots=list(by_snapshot))
    return [SnapshotFiles(**row, rows=by_snapshot[row["snapshot_id"]]) for row in found]


def _list_runs(cursor: Connection, erasure_id: str) -> list[RunFiles]:
    snapshots = [
        row["snapshot_id"]
        for row in rows(cursor, _SQL["erased_snapshots_of"], erasure_id=erasure_id)
    ]
    versions = [v.name for v in _read_versions(cursor) if v.tainted_by]
    found = rows(cursor, _SQL["runs_on"], snapshots=snapshots, versions=versions)
    return [msgspec.convert(row, RunFiles) for row in found]


def _read_versions(cursor: Connection) -> list[Version]:
    return [msgspec.convert(row, Version) for row in rows(cursor, _SQL["all_versions"])]


def _find_descent(versions: Sequence[Version], snapshots: Collection[str]) -> list[Version]:
    """Return versions trained on some snapshots, and all that were continued from those."""
    found = [version for version in versions if version.snapshot_id in snapshots]
    names = {version.name for version in found}
    while more := [v for v in versions if v.parent in names and v.name not in names]:
        found += more
        names |= {version.name for version in more}
    return found


def _taint_version(
    cursor: Connection,
    version: Version,
    erasure_id: str,
    evidence: Mapping[str, Mapping[str, Any]],
) -> None:
    """Taint a version, with the rows as evidence. It stays where it serves."""
    if version.tainted_by is not None:
        return
    cursor.execute(_SQL["taint_version"], {"erasure_id": erasure_id, "name": version.name})
    own = evidence.get(version.snapshot_id or "")
    why = "trained on an erased person" if own else "continued from a tainted version"
    findings = {"erasure": erasure_id, "snapshot": version.snapshot_id, "parent": version.parent}
    record_transition(
        cursor,
        "adapter",
        version.name,
        before=version.state,
        after=f"{version.state} (tainted)",
        actor=_ACTOR,
        reason=why,
        evidence=findings | dict(own or {}),
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


def _texts_beside(cursor: Connection, members: Sequence[str]) -> list[dict[str, Any]]:
    groups = [row["group"] for row in rows(cursor, _SQL["groups_of"], members=list(members))]
    values = {"groups": groups, "members": list(members)}
    others = rows(cursor, _SQL["conversations_in_groups"], **values)
    names = [row["member"].removeprefix("c:") for row in others]
    return rows(cursor, _SQL["texts_of_conversations"], conversations=names)
