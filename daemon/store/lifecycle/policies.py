"""Policy versions: every text that was ever in force, once."""

from datetime import datetime
from typing import Any

import msgspec

from adaptd.daemon.domain.policies import StoredPolicy
from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.lifecycle.transitions import append_audit

_SQL = statements("policies")


class PolicyStore:
    """Implements adaptd.daemon.domain.policies.PolicyLog."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(
        self, model: str, *, yaml: str, sha256: str, path: str, now: datetime
    ) -> StoredPolicy:
        """Put a text in force as a new version, or as the one it was before. Safe to repeat."""
        values = {"model": model, "yaml": yaml, "sha256": sha256, "path": path, "now": now}
        return await self._database.write(lambda cursor: _apply(cursor, values))

    async def withdraw(self, model: str, *, now: datetime) -> None:
        """Note that no file names an alias any more. Safe to repeat."""
        await self._database.write(lambda cursor: _withdraw(cursor, model, now))

    async def all(self) -> list[StoredPolicy]:
        """Every version, oldest first."""
        found = await self._database.read(lambda cursor: rows(cursor, _SQL["all_policies"]))
        return msgspec.convert(found, list[StoredPolicy])


def _apply(cursor: Connection, values: dict[str, Any]) -> StoredPolicy:
    model, now = values["model"], values["now"]
    known = _by_text(cursor, values)
    in_force = rows(cursor, _SQL["newest_applied"], model=model)
    same = known and in_force[0]["version"] == known.version and known.path == values["path"]
    if known and same and known.withdrawn_at is None:
        return known
    if known is None:
        cursor.execute(_SQL["add_policy"], values)
    else:
        where = {"model": model, "version": known.version, "path": values["path"], "now": now}
        cursor.execute(_SQL["apply_policy"], where)
    applied = _by_text(cursor, values)
    assert applied is not None
    detail = {"version": applied.version, "sha256": applied.sha256, "path": applied.path}
    append_audit(
        cursor, actor="policy", action="policy.applied", subject=model, detail=detail, now=now
    )
    return applied


def _withdraw(cursor: Connection, model: str, now: datetime) -> None:
    values = {"model": model, "now": now}
    if rows(cursor, _SQL["withdraw_policy"], **values):
        append_audit(
            cursor, actor="policy", action="policy.withdrawn", subject=model, detail={}, now=now
        )


def _by_text(cursor: Connection, values: dict[str, Any]) -> StoredPolicy | None:
    wanted = {key: values[key] for key in ("model", "sha256")}
    found = rows(cursor, _SQL["policy_by_text"], **wanted)
    return msgspec.convert(found[0], StoredPolicy) if found else None
