"""Snapshots with their row lineage, and the book of holdout groups, versions and their use."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa

from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.wire.errors import RefusedError

_SQL = statements("datasets")

CLOSES_AFTER = 8  # candidates scored on one holdout version
_LINEAGE = pa.schema(
    [(name, pa.string()) for name in ("side", "interaction", "feedback", "user", "group")]
)
_ASSIGNED = pa.schema(
    [
        ("member", pa.string()),
        ("group", pa.string()),
        ("side", pa.string()),
        ("holdout_version", pa.int32()),
    ]
)


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """An immutable training set with its suites, in the directory `path`."""

    snapshot_id: str
    model: str
    policy_version: int
    as_of: datetime
    content_hash: str
    path: str
    train_rows: int
    holdout_rows: int
    golden_rows: int
    holdout_version: int
    created_at: datetime
    manifest: dict[str, Any]


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation (`c:…`) or normalised message (`m:…`) and its group's side, for good."""

    member: str
    group: str
    side: str
    holdout_version: int | None = None


class HoldoutVersion(msgspec.Struct, frozen=True):
    """`scored` candidates have been measured on it; no group joins once there is one."""

    version: int
    scored: int


class SnapshotStore:
    """Snapshots by id. Adding the same one again replaces it: a build may be repeated."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, snapshot: Snapshot, lineage: Sequence[Mapping[str, str | None]]) -> None:
        """Store a snapshot and, for each of its rows, the events and the group behind it.

        Raises:
            RefusedError: a person in it was erased since its rows were read.
        """
        values = msgspec.structs.asdict(snapshot)
        values["manifest"] = msgspec.json.encode(snapshot.manifest).decode()
        table = pa.Table.from_pylist([dict(row) for row in lineage], schema=_LINEAGE)

        def work(cursor: Connection) -> None:
            key = {"snapshot_id": snapshot.snapshot_id}
            cursor.execute(_SQL["add_snapshot"], values)
            cursor.execute(_SQL["drop_snapshot_rows"], key)
            _from_arrow(cursor, "lineage", table, _SQL["add_snapshot_rows"], key)
            if rows(cursor, _SQL["rows_without_event"], **key)[0]["found"]:
                problem = "events in it were erased while it was built"
                raise RefusedError(f"snapshot {snapshot.snapshot_id}", problem, "Build it again")

        await self._database.write(work)

    async def get(self, snapshot_id: str) -> Snapshot:
        """Raises RefusedError where there is none."""
        found = await self._many("get_snapshot", snapshot_id=snapshot_id)
        if not found:
            raise RefusedError(f"snapshot {snapshot_id}", "there is no such snapshot", "List them")
        return found[0]

    async def ids(self) -> frozenset[str]:
        """Of every snapshot of every alias."""
        found = await self._database.read(lambda c: rows(c, _SQL["snapshot_ids"]))
        return frozenset(row["snapshot_id"] for row in found)

    async def list(self, model: str) -> "list[Snapshot]":
        """Newest first."""
        return await self._many("list_snapshots", model=model)

    async def seen_feedback(self, model: str) -> frozenset[str]:
        """Ids of the feedback that the alias's newest snapshot used, on either side.

        It is the newest one that a version came of, or the third in a row that none did.
        """
        found = await self._database.read(lambda c: rows(c, _SQL["seen_feedback"], model=model))
        return frozenset(row["feedback"] for row in found)

    async def _many(self, statement: str, **values: Any) -> "list[Snapshot]":
        found = await self._database.read(lambda c: rows(c, _SQL[statement], **values))
        return [
            msgspec.convert(row | {"manifest": msgspec.json.decode(row["manifest"])}, Snapshot)
            for row in found
        ]


class HoldoutStore:
    """Which group is on which side, and how often a suite was used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def members(self, model: str) -> dict[str, Member]:
        """Every member that has a side, by its key."""
        found = await self._database.read(lambda c: rows(c, _SQL["group_members"], model=model))
        return {row["member"]: msgspec.convert(row, Member) for row in found}

    async def assign(self, model: str, members: Sequence[Member], *, now: datetime) -> None:
        """Record members of groups. A repeat changes nothing."""
        listed = [msgspec.structs.asdict(member) for member in members]
        table = pa.Table.from_pylist(listed, schema=_ASSIGNED)
        values = {"model": model, "now": now}
        await self._database.write(
            lambda c: _from_arrow(c, "assigned", table, _SQL["add_group_members"], values)
        )

    async def current(self, model: str, *, now: datetime) -> tuple[HoldoutVersion, int]:
        """The version candidates are measured on, and the one that new groups join.

        They are the same until the first candidate was scored on it.
        """
        return await self._database.write(lambda cursor: _current(cursor, model, now))

    async def close(self, model: str, version: int, *, now: datetime) -> None:
        """Measure nothing on a version any more: too few of its items are left. Safe to repeat."""
        values = {"model": model, "version": version, "now": now}

        def work(cursor: Connection) -> None:
            cursor.execute(_SQL["close_holdout"], values)

        await self._database.write(work)

    async def score(self, model: str, suite: str, candidate: str, *, now: datetime) -> int:
        """Count a candidate on a suite and return k, its place among them from 1.

        Safe to repeat: the same candidate keeps its k, so a restart spends no alpha. A fresh
        version closes with its eighth candidate.
        """
        values = {"model": model, "suite": suite, "candidate": candidate}
        return await self._database.write(lambda cursor: _score(cursor, values, now))


def fresh_suite(version: int) -> str:
    return f"fresh:{version}"


def _current(cursor: Connection, model: str, now: datetime) -> tuple[HoldoutVersion, int]:
    found = [
        msgspec.convert(r, HoldoutVersion) for r in rows(cursor, _SQL["open_holdouts"], model=model)
    ]
    if not found:
        found = [HoldoutVersion(_open(cursor, model, now), 0)]
    if found[0].scored and len(found) == 1:
        found.append(HoldoutVersion(_open(cursor, model, now), 0))
    return found[0], found[-1].version


def _open(cursor: Connection, model: str, now: datetime) -> int:
    version = rows(cursor, _SQL["newest_holdout"], model=model)[0]["version"] + 1
    cursor.execute(_SQL["add_holdout"], {"model": model, "version": version, "now": now})
    return version


def _score(cursor: Connection, values: dict[str, str], now: datetime) -> int:
    known = rows(cursor, _SQL["get_score"], **values)
    if known:
        return known[0]["k"]
    model, suite = values["model"], values["suite"]
    k = rows(cursor, _SQL["count_scores"], model=model, suite=suite)[0]["scored"] + 1
    cursor.execute(_SQL["add_score"], values | {"k": k, "now": now})
    kind, _, version = suite.partition(":")
    if kind == "fresh":
        counted = {"model": model, "version": int(version), "k": k, "closes_after": CLOSES_AFTER}
        cursor.execute(_SQL["count_holdout"], counted | {"now": now})
    return k


def _from_arrow(
    cursor: Connection, name: str, table: pa.Table, statement: str, values: Mapping[str, Any]
) -> None:
    cursor.register(name, table)
    try:
        cursor.execute(statement, dict(values))
    finally:
        cursor.unregister(name)
