"""One secret file, one derived key per purpose: ids prove their tenant, events their gateway."""

import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from adaptd.daemon.wire.clock import utc_now
from adaptd.daemon.wire.errors import SettingsError
from adaptd.daemon.wire.files import read_regular, replace_file, sync_directory

_SECRET_BYTES = 32
_MAC_BITS = 48
_RANDOM_BITS = 14


def load_secret(path: Path) -> bytes:
    """Read the installation's 32-byte secret, made on first use with mode 0600. Safe to race.

    Raises:
        SettingsError: the file is not whole.
        OSError: the file cannot be read or made.
    """
    if not path.exists():
        _make_secret(path)
    secret = read_regular(path)
    if len(secret) != _SECRET_BYTES:
        problem = f"it holds {len(secret)} bytes, not {_SECRET_BYTES}"
        remedy = (
            "Take it from a backup. Without one delete it: a new one is made, which takes no "
            "feedback on earlier answers and does not know who was erased"
        )
        raise SettingsError(str(path), problem, remedy)
    return secret


def _make_secret(path: Path) -> None:
    """Make the file, whole under its name or not there, after a power cut too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        replace_file(fresh, secrets.token_bytes(_SECRET_BYTES), mode=0o600)
        with contextlib.suppress(FileExistsError):  # another process was first: its secret wins
            os.link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    sync_directory(path.parent)


def derive(secret: bytes, purpose: str) -> bytes:
    """Derive a key for one purpose ("ids", "events", "audit"): none can stand in for another."""
    return hmac.digest(secret, f"adaptd/{purpose}/1".encode(), "sha256")


def sign(key: bytes, value: bytes) -> str:
    """Return the hex HMAC-SHA256."""
    return hmac.new(key, value, hashlib.sha256).hexdigest()


def is_signed(key: bytes, value: bytes, signature: str | bytes | None) -> bool:
    """Say whether `signature` is `sign(key, value)`. Constant time."""
    if signature is None:
        return False
    given = signature.encode() if isinstance(signature, str) else bytes(signature)
    return hmac.compare_digest(sign(key, value).encode(), given)


def new_response_id(key: bytes, tenant: str, *, clock: Callable[[], datetime] = utc_now) -> str:
    """Make a UUIDv7 whose last 48 bits prove to any gateway which tenant got the response.

    26 random bits a millisecond keep ids apart: at 1,000 ids a second two meet once in ages, and
    the store drops a copy as a duplicate, never mixed.
    """
    head = _pack_head(
        int(clock().timestamp() * 1000), secrets.randbits(12), secrets.randbits(_RANDOM_BITS)
    )
    return _format_uuid(head << _MAC_BITS | _compute_mac(key, head, tenant))


def belongs_to(key: bytes, response_id: str, tenant: str) -> bool:
    """Say whether `response_id` was issued to `tenant` under this key. Never raises."""
    try:
        number = int(response_id.replace("-", ""), 16)
    except ValueError:
        return False
    if number >> 128 or _format_uuid(number) != response_id:
        return False
    head, mac = number >> _MAC_BITS, number & ((1 << _MAC_BITS) - 1)
    return hmac.compare_digest(
        mac.to_bytes(6, "big"), _compute_mac(key, head, tenant).to_bytes(6, "big")
    )


def _pack_head(unix_ms: int, rand_a: int, rand_b: int) -> int:
    """Pack the first 80 bits of a UUIDv7 (RFC 9562): time, version, rand_a, variant, rand_b."""
    head = (unix_ms & ((1 << 48) - 1)) << 4 | 7
    head = head << 12 | rand_a
    return (head << 2 | 0b10) << _RANDOM_BITS | rand_b


def _compute_mac(key: bytes, head: int, tenant: str) -> int:
    digest = hmac.digest(key, head.to_bytes(10, "big") + tenant.encode(), "sha256")
    return int.from_bytes(digest[: _MAC_BITS // 8], "big")


def _format_uuid(number: int) -> str:
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
