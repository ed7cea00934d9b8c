"""Erasures: one row each, moved through their states, and the tombstones they leave."""

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from adaptd.daemon.domain.erasures import Erasure, ErasureState, Person, pseudonym
from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.ingest.tombstones import tombstones_changed
from adaptd.daemon.store.lifecycle.transitions import append_audit
from adaptd.daemon.wire.errors import RefusedError

_SQL = statements("erasures")


class ErasureStore:
    """Who was erased, as pseudonyms, and how far it has got."""

    def __init__(self, database: Database, secret: str) -> None:
        """`secret`: hex, derived for erasures; see `pseudonym`."""
        self._database = database
        self._secret = secret

    async def add(
        self, person: Person, *, reason: str, actor: str, now: datetime, barred_until: datetime
    ) -> Erasure:
        """Keep a request; from its commit on no event of the person is stored.

        One of the same person that is under way is returned instead.
        """

        def work(cursor: Connection) -> Erasure:
            who = self._who(person)
            if known := rows(cursor, _SQL["erasure_of_person"], **who):
                return _erasure(known[0])
            erasure_id = f"er-{secrets.token_hex(5)}"
            values = {"erasure_id": erasure_id, "reason": reason, "actor": actor, "now": now}
            cursor.execute(_SQL["add_erasure"], who | values | {"barred_until": barred_until})
            self._bar(cursor, erasure_id, person, barred_until)
            self._audit(cursor, erasure_id, "requested", who, actor=actor, reason=reason, now=now)
            return _get(cursor, erasure_id)

        erasure = await self._database.write(work)
        tombstones_changed(self._database)
        return erasure

    async def get(self, erasure_id: str) -> Erasure:
        """Raises RefusedError where there is none."""
        return await self._database.read(lambda c: _get(c, erasure_id))

    async def list(self, limit: int = 50) -> list[Erasure]:
        """Newest first."""
        found = await self._database.read(lambda c: rows(c, _SQL["list_erasures"], limit=limit))
        return [_erasure(row) for row in found]

    async def unfinished(self) -> "list[Erasure]":
        """Oldest first."""
        found = await self._database.read(lambda c: rows(c, _SQL["unfinished_erasures"]))
        return [_erasure(row) for row in found]

    async def person(self, erasure_id: str) -> Person:
        """Whom an erasure under way is of: in clear, until its rows are gone."""
        values = {"erasure_id": erasure_id}
        found = await self._database.read(lambda c: rows(c, _SQL["work_of"], **values))
        row = next(row for row in found if row["kind"] == "user")
        return Person(row["value"], row["tenant"])

    async def words(self, erasure_id: str) -> frozenset[str]:
        """Every id of theirs, and the identifier itself."""
        values = {"erasure_id": erasure_id}
        found = await self._database.read(lambda c: rows(c, _SQL["work_of"], **values))
        return frozenset(row["value"] for row in found)

    async def move(
        self,
        erasure_id: str,
        to: ErasureState,
        *,
        told: Mapping[str, Any] | None = None,
        now: datetime,
    ) -> Erasure:
        """Note that a step is done, with what it found. Safe to repeat."""

        def work(cursor: Connection) -> Erasure:
            return move_erasure(cursor, erasure_id, to, told or {}, now=now)

        return await self._database.write(work)

    async def wait(self, erasure_id: str, what: str | None, *, now: datetime) -> None:
        """Note what it waits for."""
        values = {"erasure_id": erasure_id, "waits_for": what, "now": now}

        def work(cursor: Connection) -> None:
            cursor.execute(_SQL["set_waits_for"], values)

        await self._database.write(work)

    async def lift(self, person: Person, *, reason: str, actor: str, now: datetime) -> int:
        """Forget the person's tombstones. Returns how many erasures they were of."""

        def work(cursor: Connection) -> int:
            who = self._who(person)
            cursor.execute(_SQL["lift_tombstones"], who)
            found = rows(cursor, _SQL["lift_erasures"], **who, now=now)
            for row in found:
                about = {"actor": actor, "reason": reason, "now": now}
                self._audit(cursor, row["erasure_id"], "lifted", who, **about)
            return len(found)

        lifted = await self._database.write(work)
        tombstones_changed(self._database)
        return lifted

    async def drop_old_tombstones(self, now: datetime) -> None:
        """Those whose time has come no longer bar anybody."""

        def work(cursor: Connection) -> None:
            cursor.execute(_SQL["drop_old_tombstones"], {"now": now})

        await self._database.write(work)
        tombstones_changed(self._database)

    def _who(self, person: Person) -> dict[str, Any]:
        return {"person": pseudonym(self._secret, "user", person.user), "tenant": person.tenant}

    def _bar(self, cursor: Connection, erasure_id: str, person: Person, until: datetime) -> None:
        key = pseudonym(self._secret, "user", person.user)
        values = {"erasure_id": erasure_id, "tenant": person.tenant}
        cursor.execute(_SQL["add_user_tombstone"], values | {"key": key, "until": until})
        cursor.execute(_SQL["add_person"], values | {"user": person.user})

    def _audit(
        self,
        cursor: Connection,
        erasure_id: str,
        what: str,
        who: Mapping[str, Any],
        *,
        actor: str,
        reason: str,
        now: datetime,
    ) -> None:
        detail = {**who, "reason": reason}
        action = f"erasure.{what}"
        append_audit(cursor, actor=actor, action=action, subject=erasure_id, detail=detail, now=now)


def move_erasure(
    cursor: Connection,
    erasure_id: str,
    to: ErasureState,
    told: Mapping[str, Any],
    *,
    now: datetime,
) -> Erasure:
    """The same inside a transaction of the caller's."""
    known = _get(cursor, erasure_id)
    report = msgspec.json.encode(known.report | dict(told)).decode()
    values = {"erasure_id": erasure_id, "state": to, "report": report, "now": now}
    cursor.execute(_SQL["move_erasure"], values)
    if known.state != to:
        append_audit(
            cursor,
            actor="erasure",
            action=f"erasure.{to}",
            subject=erasure_id,
            detail={"person": known.person},
            now=now,
        )
    return _get(cursor, erasure_id)


def _get(cursor: Connection, erasure_id: str) -> Erasure:
    if found := rows(cursor, _SQL["get_erasure"], erasure_id=erasure_id):
        return _erasure(found[0])
    raise RefusedError(
        f"erasure {erasure_id}", "there is no such erasure", "List them: adaptd erasures list"
    )


def _erasure(row: dict[str, Any]) -> Erasure:
    return msgspec.convert(row | {"report": msgspec.json.decode(row["report"])}, Erasure)
