"""Erasures: one row each, moved through their states, and the tombstones they leave."""

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from adaptd.daemon.domain.erasures import Erasure, ErasureState, Person, pseudonym
from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.ingest.tombstones import Tombstones
from adaptd.daemon.store.lifecycle.transitions import append_audit
from adaptd.daemon.wire.errors import RefusedError

_SQL = statements("erasures")


class ErasureStore:
    """Erasures with their progress. Persons appear as pseudonyms."""

    def __init__(self, database: Database, secret: str, tombstones: Tombstones) -> None:
        """`secret`: hex, derived for erasures; see `pseudonym`.

        `tombstones` are the sink's: this store tells them when there are more, or fewer.
        """
        self._database = database
        self._secret = secret
        self._tombstones = tombstones

    async def add(
        self, person: Person, *, reason: str, actor: str, now: datetime, barred_until: datetime
    ) -> Erasure:
        """Store a request; from its commit on no event of the person is stored.

        Returns the erasure of the same person that is under way, where there is one.
        """

        def work(cursor: Connection) -> Erasure:
            who = self._key_of_person(person)
            if known := rows(cursor, _SQL["erasure_of_person"], **who):
                return _read_erasure(known[0])
            erasure_id = f"er-{secrets.token_hex(5)}"
            values = {"erasure_id": erasure_id, "reason": reason, "actor": actor, "now": now}
            cursor.execute(_SQL["add_erasure"], who | values | {"barred_until": barred_until})
            self._bar_person(cursor, erasure_id, person, barred_until)
            self._append_audit(
                cursor, erasure_id, "requested", who, actor=actor, reason=reason, now=now
            )
            return _get_erasure(cursor, erasure_id)

        erasure = await self._database.write(work)
        self._tombstones.note_change()
        return erasure

    async def get(self, erasure_id: str) -> Erasure:
        """Return an erasure. Raises RefusedError where there is none."""
        return await self._database.read(lambda c: _get_erasure(c, erasure_id))

    async def list(self, limit: int = 50) -> list[Erasure]:
        """Return erasures, newest first."""
        found = await self._database.read(lambda c: rows(c, _SQL["list_erasures"], limit=limit))
        return [_read_erasure(row) for row in found]

    async def unfinished(self) -> "list[Erasure]":
        """Return unfinished erasures, oldest first."""
        found = await self._database.read(lambda c: rows(c, _SQL["unfinished_erasures"]))
        return [_read_erasure(row) for row in found]

    async def person(self, erasure_id: str) -> Person:
        """Return the person of an erasure under way: in clear, until the rows are gone."""
        values = {"erasure_id": erasure_id}
        found = await self._database.read(lambda c: rows(c, _SQL["work_of"], **values))
        row = next(row for row in found if row["kind"] == "user")
        return Person(row["value"], row["tenant"])

    async def words(self, erasure_id: str) -> frozenset[str]:
        """Return every id of the person's, and their identifier."""
        values = {"erasure_id": erasure_id}
        found = await self._database.read(lambda c: rows(c, _SQL["work_of"], **values))
        return frozenset(row["value"] for row in found)

    async def move(
        self,
        erasure_id: str,
        to: ErasureState,
        *,
        findings: Mapping[str, Any] | None = None,
        now: datetime,
    ) -> Erasure:
        """Note that a step is done, with its findings. Safe to repeat."""

        def work(cursor: Connection) -> Erasure:
            return move_erasure(cursor, erasure_id, to, findings or {}, now=now)

        return await self._database.write(work)

    async def wait(self, erasure_id: str, what: str | None, *, now: datetime) -> None:
        """Note what an erasure waits for; None: nothing."""
        values = {"erasure_id": erasure_id, "waits_for": what, "now": now}

        def work(cursor: Connection) -> None:
            cursor.execute(_SQL["set_waits_for"], values)

        await self._database.write(work)

    async def lift(self, person: Person, *, reason: str, actor: str, now: datetime) -> int:
        """Remove the person's tombstones. Returns how many erasures had some."""

        def work(cursor: Connection) -> int:
            who = self._key_of_person(person)
            cursor.execute(_SQL["lift_tombstones"], who)
            found = rows(cursor, _SQL["lift_erasures"], **who, now=now)
            for row in found:
                about = {"actor": actor, "reason": reason, "now": now}
                self._append_audit(cursor, row["erasure_id"], "lifted", who, **about)
            return len(found)

        lifted = await self._database.write(work)
        self._tombstones.note_change()
        return lifted

    async def drop_old_tombstones(self, now: datetime) -> None:
        """Remove the tombstones whose time is over."""

        def work(cursor: Connection) -> None:
            cursor.execute(_SQL["drop_old_tombstones"], {"now": now})

        await self._database.write(work)
        self._tombstones.note_change()

    def _key_of_person(self, person: Person) -> dict[str, Any]:
        return {"person": pseudonym(self._secret, "user", person.user), "tenant": person.tenant}

    def _bar_person(
        self, cursor: Connection, erasure_id: str, person: Person, until: datetime
    ) -> None:
        key = pseudonym(self._secret, "user", person.user)
        values = {"erasure_id": erasure_id, "tenant": person.tenant}
        cursor.execute(_SQL["add_user_tombstone"], values | {"key": key, "until": until})
        cursor.execute(_SQL["add_person"], values | {"user": person.user})

    def _append_audit(
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
    findings: Mapping[str, Any],
    *,
    now: datetime,
) -> Erasure:
    """Do what `ErasureStore.move` does, inside a transaction of the caller's."""
    known = _get_erasure(cursor, erasure_id)
    report = msgspec.json.encode(known.report | dict(findings)).decode()
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
    return _get_erasure(cursor, erasure_id)


def _get_erasure(cursor: Connection, erasure_id: str) -> Erasure:
    if found := rows(cursor, _SQL["get_erasure"], erasure_id=erasure_id):
        return _read_erasure(found[0])
    raise RefusedError(
        f"erasure {erasure_id}", "there is no such erasure", "List them: adaptd erasures list"
    )


def _read_erasure(row: dict[str, Any]) -> Erasure:
    return msgspec.convert(row | {"report": msgspec.json.decode(row["report"])}, Erasure)
