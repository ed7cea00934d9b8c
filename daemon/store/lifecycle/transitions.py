"""Transitions: the row that explains a change of state, in the change's own transaction."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import msgspec

from adaptd.daemon.store.database.database import Connection, rows
from adaptd.daemon.store.database.statements import statements

_SQL = statements("transitions")


def record_transition(
    cursor: Connection,
    kind: str,
    subject: str,
    *,
    before: str | None,
    after: str,
    actor: str,
    reason: str,
    evidence: Any = None,
) -> None:
    """Record the author, time, reason and evidence of a subject's change of state.

    Call it inside the transaction that changes the state. It also extends the audit chain.
    """
    detail = {"from": before, "to": after, "reason": reason, "evidence": evidence}
    now = datetime.now(UTC)
    cursor.execute(
        _SQL["add_transition"],
        {
            "kind": kind,
            "subject": subject,
            "before": before,
            "after": after,
            "actor": actor,
            "reason": reason,
            "evidence": _as_json(evidence),
            "now": now,
        },
    )
    append_audit(
        cursor, actor=actor, action=f"{kind}.{after}", subject=subject, detail=detail, now=now
    )


def append_audit(
    cursor: Connection,
    *,
    actor: str,
    action: str,
    subject: str,
    detail: Any,
    now: datetime,
) -> None:
    """Add one link to the hash chain: each digest covers the row and the digest before it."""
    last = rows(cursor, _SQL["last_audit"])
    # The writer is one thread, so nobody else appends between this read and the insert.
    sequence, previous = (last[0]["sequence"] + 1, last[0]["digest"]) if last else (1, "")
    body = _as_json(detail) or "null"
    digest = audit_digest(sequence, now, actor, action, subject, body, previous)
    cursor.execute(
        _SQL["add_audit"],
        {
            "sequence": sequence,
            "now": now,
            "actor": actor,
            "action": action,
            "subject": subject,
            "detail": body,
            "previous": previous,
            "digest": digest,
        },
    )


def audit_digest(
    sequence: int, at: datetime, actor: str, action: str, subject: str, detail: str, previous: str
) -> str:
    """Return the SHA-256 of the row's fields and the digest before it."""
    fields = [sequence, at.astimezone(UTC).isoformat(), actor, action, subject, detail, previous]
    return hashlib.sha256(msgspec.json.encode(fields)).hexdigest()


def _as_json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
