"""A backup's folder: what lies in it, its manifest, and how files get there whole."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import msgspec

from adaptd.daemon.wire.errors import RefusedError, StoreError
from adaptd.daemon.wire.files import open_regular, read_regular, replace_file, sync_directory
from adaptd.daemon.wire.texts import NOT_DECODED

FORMAT = 1
MANIFEST = "manifest.json"
STORE, ADAPTERS, POLICIES = "store.duckdb", "adapters", "policies"
SNAPSHOTS, SECRETS = "snapshots", "secrets"
SECRET_FILES = ("secret.key", "tokens.json", "control.token")
_PARTS = (STORE, ADAPTERS, POLICIES, SNAPSHOTS, SECRETS)
_CHUNK_BYTES = 1 << 20

Told = Callable[[str, int, int], None]  # phase, bytes done, bytes in all


class Place(NamedTuple):
    """One installation: its home folder and its policies."""

    home: Path
    policies: Path

    @property
    def store(self) -> Path:
        return self.home / STORE

    def part(self, name: str) -> Path:
        """Where a part of a backup belongs."""
        known = {POLICIES: self.policies, SECRETS: self.home}
        return known.get(name, self.home / name)


class FileFact(msgspec.Struct, frozen=True):
    bytes: int
    sha256: str


class BackupManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Written last: a folder with it is whole. Names no secret and holds no text of anybody.

    Everything committed by `as_of` is in it. `missing` are adapter versions whose files were
    damaged or gone when it was made. `files` are relative paths.
    """

    format: int = FORMAT
    version: str
    schema: int
    as_of: datetime
    home: str
    encrypted: bool
    secrets: bool
    epoch: int
    rows: dict[str, int]
    offsets: list[dict[str, Any]]
    adapters: list[str]
    missing: dict[str, str]
    files: dict[str, FileFact]

    @property
    def bytes(self) -> int:
        return sum(fact.bytes for fact in self.files.values())


@contextmanager
def made_whole(destination: Path) -> Iterator[Path]:
    """A folder beside `destination` that takes its name at the end, or is gone.

    What a killed backup left there is removed by the next one to the same destination.

    Raises:
        RefusedError: the destination exists, or another backup to it is under way.
    """
    where = str(destination)
    if destination.exists() or destination.is_symlink():
        raise RefusedError(where, "it is there already", "Name a folder that does not exist")
    if not destination.parent.is_dir():
        remedy = "Make it first, or mount what belongs there"
        raise RefusedError(where, f"there is no folder {destination.parent}", remedy)
    folder = destination.with_name(f".{destination.name}.partial")
    folder.mkdir(mode=0o700, exist_ok=True)
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _hold(held, where)
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        yield folder
        _sync_tree(folder)
        folder.rename(destination)
        sync_directory(destination.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        os.close(held)


def write_manifest(folder: Path, manifest: BackupManifest) -> None:
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    replace_file(folder / MANIFEST, content)


def read_manifest(folder: Path) -> BackupManifest:
    """Raises RefusedError where the folder is no whole backup that this release knows."""
    where, remedy = str(folder), "Name a folder that `adaptd backup` made"
    try:
        manifest = msgspec.json.decode(read_regular(folder / MANIFEST), type=BackupManifest)
    except OSError as error:
        raise RefusedError(where, f"it is no whole backup ({error.strerror})", remedy) from error
    except NOT_DECODED as error:
        raise RefusedError(where, f"its {MANIFEST} is damaged ({error})", remedy) from error
    if manifest.format > FORMAT:
        raise RefusedError(where, f"it has format {manifest.format}", "Use the newer adaptd")
    if odd := [name for name in manifest.files if not _belongs(name)]:
        raise RefusedError(where, f"{odd[0]!r} has no place in a backup", remedy)
    return manifest


def verify_backup(folder: Path, told: Told = lambda *_: None) -> BackupManifest:
    """Read every file of a backup again and compare it with the manifest.

    Raises:
        RefusedError: it is not whole, with every file that is missing or not what was written.
    """
    manifest = read_manifest(folder)
    wrong, done = [], 0
    for name, fact in manifest.files.items():
        told("verify", done, manifest.bytes)
        if fact_of(folder / name) != fact:
            wrong.append(name)
        done += fact.bytes
    if wrong:
        some = ", ".join(sorted(wrong)[:5]) + (f" and {len(wrong) - 5} more" * (len(wrong) > 5))
        problem = f"{len(wrong)} files are missing or not what was written: {some}"
        raise RefusedError(str(folder), problem, "Take another backup: this one is damaged")
    return manifest


def facts_of(folder: Path, told: Told) -> dict[str, FileFact]:
    """Size and SHA-256 of every file, by its path within the folder."""
    found, done = {}, 0
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    total = sum(path.stat().st_size for path in paths)
    for path in paths:
        told("hashes", done, total)
        if (fact := fact_of(path)) is not None:
            found[path.relative_to(folder).as_posix()] = fact
            done += fact.bytes
    return found


def copy_tree(source: Path, target: Path, *, link: bool = False) -> None:
    """Copy a folder's plain files, leaving out links and hidden ones; `link` where it can be."""
    if not source.is_dir():
        return
    for path in sorted(source.rglob("*")):
        inner = path.relative_to(source)
        if path.is_symlink() or not path.is_file() or any(p[0] == "." for p in inner.parts):
            continue
        copy_file(path, target / inner, link=link)


def copy_file(source: Path, target: Path, *, mode: int | None = None, link: bool = False) -> None:
    """Copy one file, in one step. A hard link shares its bytes: for files that never change."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if link:
        try:
            os.link(source, target)
        except OSError:  # another file system
            pass
        else:
            return
    fresh = target.with_name(f".{target.name}.part")
    fresh.unlink(missing_ok=True)
    with open_regular(source) as reading:
        kept = os.fstat(reading.fileno()).st_mode & 0o777 if mode is None else mode
        number = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(number, "wb") as writing:
            shutil.copyfileobj(reading, writing, _CHUNK_BYTES)
            os.fchmod(writing.fileno(), kept)
            os.fsync(writing.fileno())
    fresh.replace(target)


def cannot_write(where: Path, error: Exception) -> StoreError:
    text = str(error).splitlines()[0]
    return StoreError(str(where), f"it cannot be written ({text})", "Check its disk and rights")


def fact_of(path: Path) -> FileFact | None:
    """Size and SHA-256; None where there is no such plain file."""
    try:
        with open_regular(path, follow_links=False) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return FileFact(os.fstat(file.fileno()).st_size, digest)
    except OSError:
        return None


def _belongs(name: str) -> bool:
    """A manifest from elsewhere must not lead out of its folder."""
    path = PurePosixPath(name)
    inside = not path.is_absolute() and ".." not in path.parts and "\\" not in name
    return inside and path.parts[:1] != () and path.parts[0] in _PARTS


def _hold(folder: int, where: str) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        problem = "another backup to it is under way"
        raise RefusedError(where, problem, "Wait for it, or name another folder") from error


def _sync_tree(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            sync_directory(path)
