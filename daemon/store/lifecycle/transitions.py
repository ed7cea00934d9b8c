"""Every change of state: the new state and the row that explains it, in one transaction."""

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
    """Write who or what moved a subject to a state, when, why and on what evidence.

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
            "evidence": _json(evidence),
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
    sequence, previous = (last[0]["sequence"] + 1, last[0]["digest"]) if last else (1, "")
    body = _json(detail) or "null"
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
    """SHA-256 over the row's fields and the digest before it."""
    fields = [sequence, at.astimezone(UTC).isoformat(), actor, action, subject, detail, previous]
    return hashlib.sha256(msgspec.json.encode(fields)).hexdigest()


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
