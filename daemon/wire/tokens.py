"""API tokens: identity and rights of a caller. The file keeps only hashes of them."""

import fcntl
import hashlib
import secrets
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

import msgspec

from adaptd.daemon.wire.errors import RefusedError, SettingsError
from adaptd.daemon.wire.events import AwareTime, Source
from adaptd.daemon.wire.files import read_regular, replace_file, shown_path
from adaptd.daemon.wire.texts import NOT_DECODED

Scope = Literal["chat", "feedback", "events", "operate", "read", "control"]
SCOPES: tuple[str, ...] = get_args(Scope)
SOURCES: tuple[str, ...] = get_args(Source)
CONTROL_SCOPES = ("control", "operate", "read", "events")

# No colon: a tenant's name stands before ids of its own making, with a colon between.
Tenant = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z")]
T = TypeVar("T")


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The holder of a valid token.

    `models` None means every alias; `sources` are those that the holder's feedback may claim.
    """

    id: str
    tenant: str
    scopes: frozenset[str]
    sources: frozenset[str] = frozenset()
    models: frozenset[str] | None = None

    def may(self, scope: Scope) -> bool:
        """Say whether the token has the scope; `control`, for every alias, never with `models`."""
        return scope in self.scopes and (scope != "control" or self.models is None)

    def sees(self, model: str) -> bool:
        return self.models is None or model in self.models


class TokenEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One token in the file: everything but the token itself."""

    id: str
    sha256: str
    tenant: Tenant
    scopes: tuple[Scope, ...]
    sources: tuple[Source, ...] = ()
    models: tuple[str, ...] | None = None
    created_at: AwareTime
    expires_at: AwareTime | None = None


class TokenFile(msgspec.Struct, frozen=True):
    tokens: tuple[TokenEntry, ...] = ()


class TokenBook:
    """Looks tokens up in a file that other processes edit.

    A missing file holds no token. A file that cannot be read leaves the last good one in force, and
    `problem` says what is wrong with it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = (0, 0, 0)  # of no file: it is read first
        self._entries: dict[str, TokenEntry] = {}
        self.problem: SettingsError | None = None

    def lookup(self, bearer: str) -> Principal | None:
        """Return the holder of a token, or None where it is unknown or expired."""
        self._reload_if_changed()
        # Keyed by hash, so the time of the look-up tells nothing about the token.
        entry = self._entries.get(_hash_token(bearer))
        if entry is None or _has_expired(entry, datetime.now(UTC)):
            return None
        return Principal(
            id=entry.id,
            tenant=entry.tenant,
            scopes=frozenset(entry.scopes),
            sources=frozenset(entry.sources),
            models=None if entry.models is None else frozenset(entry.models),
        )

    def _reload_if_changed(self) -> None:
        seen = _stat_file(self._path)
        if seen == self._seen:
            return
        try:
            entries = list_tokens(self._path)
        except SettingsError as error:
            self.problem = error
        else:
            self._entries = {entry.sha256: entry for entry in entries}
            self.problem = None
        self._seen = seen


def list_tokens(path: Path) -> tuple[TokenEntry, ...]:
    """List the tokens of a file, oldest first; none where the file is missing.

    Raises:
        SettingsError: the file is not what `create_token` writes.
    """
    try:
        return msgspec.json.decode(read_regular(path), type=TokenFile).tokens
    except FileNotFoundError:
        return ()
    except (OSError, *NOT_DECODED) as error:
        raise SettingsError(
            str(path), f"the tokens cannot be read ({error})", "Mend the file or restore a copy"
        ) from error


def create_token(
    path: Path,
    *,
    tenant: str,
    scopes: tuple[str, ...],
    sources: tuple[str, ...] = ("user",),
    models: tuple[str, ...] | None = None,
    expires_at: datetime | None = None,
) -> tuple[str, TokenEntry]:
    """Make a token and return it with its entry: shown this once, the file keeps its hash.

    Raises:
        RefusedError: a scope, a source or the tenant's name is not allowed.
    """
    if models is not None and "control" in scopes:
        problem = "the scope control reaches every alias"
        raise RefusedError("token", problem, "Give read and operate, or leave out the aliases")
    token = f"adt_{secrets.token_urlsafe(32)}"
    entry = _make_entry(
        token, tenant, scopes, sources=sources, models=models, expires_at=expires_at
    )
    _edit_file(path, lambda tokens: ((*tokens, entry), None))
    return token, entry


def revoke_token(path: Path, token_id: str) -> bool:
    """Remove a token, at once for all readers of the file. False where it was not there."""

    def without(tokens: tuple[TokenEntry, ...]) -> tuple[tuple[TokenEntry, ...], bool]:
        kept = tuple(entry for entry in tokens if entry.id != token_id)
        return kept, len(kept) < len(tokens)

    return _edit_file(path, without)


def ensure_control_token(path: Path, tokens_path: Path) -> str:
    """Return the token that daemon and gateway share, made on first use. Safe to race.

    The token stands in plain text in a file that only its owner can read.
    """

    def with_control(tokens: tuple[TokenEntry, ...]) -> tuple[tuple[TokenEntry, ...], str]:
        token = _read_token(path)
        if token is None:
            token = f"adt_{secrets.token_urlsafe(32)}"
            replace_file(path, token.encode() + b"\n")
        if any(entry.sha256 == _hash_token(token) for entry in tokens):
            return tokens, token
        entry = _make_entry(token, "operator", CONTROL_SCOPES, sources=SOURCES)
        return (*tokens, entry), token

    return _edit_file(tokens_path, with_control)


def _make_entry(
    token: str,
    tenant: str,
    scopes: tuple[str, ...],
    *,
    sources: tuple[str, ...],
    models: tuple[str, ...] | None = None,
    expires_at: datetime | None = None,
) -> TokenEntry:
    fields = {
        "id": secrets.token_hex(4),
        "sha256": _hash_token(token),
        "tenant": tenant,
        "scopes": scopes,
        "sources": sources,
        "models": models,
        "created_at": datetime.now(UTC),
        "expires_at": expires_at,
    }
    try:
        return msgspec.convert(fields, TokenEntry)
    except msgspec.ValidationError as error:
        raise RefusedError(
            "token",
            str(error),
            f"Scopes are {', '.join(SCOPES)}; sources {', '.join(SOURCES)}; "
            "a tenant is 1 to 64 letters, digits, dots, dashes or underscores",
        ) from error


def _edit_file(
    path: Path,
    change: Callable[[tuple[TokenEntry, ...]], tuple[tuple[TokenEntry, ...], T]],
) -> T:
    """Change the file as a whole, one process at a time.

    Raises:
        SettingsError: the file cannot be read or written.
    """
    with _lock_file(path):
        before = list_tokens(path)
        after, result = change(before)
        if after != before:
            replace_file(path, msgspec.json.format(msgspec.json.encode(TokenFile(after))) + b"\n")
    return result


@contextmanager
def _lock_file(path: Path) -> Generator[None, None, None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        problem = f"it cannot be read or written ({error.strerror})"
        remedy = "See what lies there and who owns it, or set ADAPTD_HOME to another folder"
        raise SettingsError(shown_path(error.filename or path), problem, remedy) from error


def _read_token(path: Path) -> str | None:
    try:
        return read_regular(path).decode().strip() or None
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        remedy = "Delete it: a new one is made"
        raise SettingsError(str(path), "it holds no token", remedy) from error


def _stat_file(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:  # missing, or links in a circle: the read says which
        return None
    # The ctime, since a change of rights leaves the mtime as it is.
    return found.st_ctime_ns, found.st_ino, found.st_size


def _has_expired(entry: TokenEntry, now: datetime) -> bool:
    return entry.expires_at is not None and entry.expires_at <= now


def _hash_token(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
