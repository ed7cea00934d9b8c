"""Watcher of the policy folder, which keeps the policy book in step.

A broken file changes only the problems: the last good version stays in force.
"""

# watchfiles' changes are partly typed.
# pyright: reportUnknownVariableType=false

import asyncio
import os
import stat
import traceback
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog
from watchfiles import awatch

from adaptd.daemon.domain.policies import StoredPolicy
from adaptd.daemon.policy.book import PolicyBook, PolicyVersion
from adaptd.daemon.policy.document import read_document
from adaptd.daemon.policy.files import policy_paths
from adaptd.daemon.policy.load import Limits, Loaded, load_policy
from adaptd.daemon.wire.errors import AdaptdError, HaltError, PolicyError
from adaptd.daemon.wire.files import shown_path

_log = structlog.get_logger(__name__)
_MOST_FILES = 10_000  # of a folder that was meant to hold a few
_AGAIN = "It is tried again. The last good versions stay in force; the daemon's log says where"
_Stamp = tuple[str, int, int, int, int]  # path, mtime and ctime in ns, bytes, inode


class PolicyLog(Protocol):
    """Store of policy versions (daemon/store/lifecycle/policies.py)."""

    async def apply(
        self, model: str, *, yaml: str, sha256: str, path: str, now: datetime
    ) -> StoredPolicy:
        """Put a text in force as a new version, or as the one it was before. Safe to repeat."""
        ...

    async def withdraw(self, model: str, *, now: datetime) -> None:
        """Note that no file names an alias any more. Safe to repeat."""
        ...

    async def all(self) -> list[StoredPolicy]:
        """Return every version, oldest first."""
        ...


class WhereCheck(Protocol):
    """Trial of a policy's `where` on the columns of `examples` (daemon/store)."""

    async def check(self, where: str) -> None:
        """Try an expression. Raises AdaptdError with its problem."""
        ...


class PolicyService:
    """Loads, checks and versions the folder's policies, at start and whenever a file changes."""

    def __init__(
        self,
        folder: Path,
        *,
        book: PolicyBook,
        log: PolicyLog,
        limits: Limits,
        where_check: WhereCheck,
        poll_s: float = 2.0,
        grace_s: float = 0.5,
    ) -> None:
        """`poll_s` is the time between two looks where the system reports no change.

        `grace_s` is the time after which a missing file is looked for again, before its policy is
        withdrawn: some editors delete a file before they write it again.
        """
        self._folder = folder
        self._book = book
        self._log = log
        self._limits = limits
        self._where = where_check
        self._poll_s = poll_s
        self._grace_s = grace_s
        self._stamps: tuple[_Stamp, ...] | None = None
        self._started = False

    async def recall(self) -> None:
        """Fill the book with the store's versions, which runs and rollouts under way began with.

        It takes milliseconds, so that routes are published before the files are read and checked.
        """
        if not self._started:
            for stored in await self._log.all():
                self._book.remember(stored)
            self._started = True

    async def start(self) -> None:
        """Fill the book: the store's versions, then the files. Call before the stages run."""
        await self.recall()
        await self.refresh()

    async def run(self) -> None:
        """Follow the folder until cancelled."""
        await self.recall()
        while True:
            try:
                await self.refresh()
                await self._follow_folder()
            except (OSError, RuntimeError) as error:  # no folder, no watches left
                _log.warning("policy_folder_not_followed", reason=type(error).__name__)
            await asyncio.sleep(self._poll_s)

    async def refresh(self) -> None:
        """Apply the changes of the folder since the last look. Safe to repeat.

        1. Stamp every file and compare with the last look.
        2. Load and check the policy files, again after a grace where one is missing.
        3. Try each new `where` on the store.
        4. Put good files in force; a broken one keeps the last good version of its alias.
        5. Withdraw aliases that no file names, so that no broken file brings them back.

        The book shows an error of the check itself, and the next look tries again.
        """
        try:
            await self._apply_changes()
        except HaltError:
            raise
        except Exception as error:  # noqa: BLE001 - no file may keep the others from being followed
            self._stamps = None
            failure = _describe_failure(error, shown_path(self._folder))
            self._log_failure(error, failure)
            self._book.fail(failure)

    async def _apply_changes(self) -> None:
        stamps = await asyncio.to_thread(_stamp_files, self._folder)
        if stamps == self._stamps:
            return
        loaded = await asyncio.to_thread(self._load_files)
        if self._lacks_file(loaded):
            await asyncio.sleep(self._grace_s)
            stamps = await asyncio.to_thread(_stamp_files, self._folder)
            loaded = await asyncio.to_thread(self._load_files)
        checked = [await self._check_where(file) for file in loaded]
        await self._apply_files(checked)
        self._stamps = stamps if all(file.error is None for file in checked) else None

    async def _follow_folder(self) -> None:
        watching = awatch(
            self._folder,
            watch_filter=None,  # golden files count, however they are named
            debounce=200,
            rust_timeout=round(self._poll_s * 1000),
            yield_on_timeout=True,  # a network folder reports no change
        )
        async for _ in watching:
            await self.refresh()

    def _load_files(self) -> list[Loaded]:
        return [self._load_file(path) for path in policy_paths(self._folder)]

    def _load_file(self, path: Path) -> Loaded:
        try:
            return load_policy(path, folder=self._folder, limits=self._limits)
        except Exception as error:  # noqa: BLE001 - the other policies go on
            return _mark_unchecked(path, "", error)

    def _lacks_file(self, files: Sequence[Loaded]) -> bool:
        """Say whether a policy in force has lost its file."""
        found = {str(file.path) for file in files}
        return any(version.path not in found for version in self._book.all())

    async def _check_where(self, file: Loaded) -> Loaded:
        """Try the `where` of a file, unless the same text is in force already."""
        if file.policy is None or self._is_in_force(file):
            return file
        try:
            await self._where.check(file.policy.select.where)
        except AdaptdError as error:
            line = read_document(file.text).line_of(("select", "where"))
            problem = PolicyError(
                f"{file.path}:{line}", f"select.where: {error.problem}", error.remedy
            )
            return Loaded(file.path, None, file.text, (problem,))
        except Exception as error:  # noqa: BLE001 - the other policies go on
            return _mark_unchecked(file.path, file.text, error)
        return file

    def _is_in_force(self, file: Loaded) -> bool:
        return any(version.sha256 == file.sha256 for version in self._book.all())

    async def _apply_files(self, files: Sequence[Loaded]) -> None:
        now = datetime.now(UTC)
        files = _refuse_shared_aliases(files)
        in_force: dict[str, PolicyVersion] = {}
        for file in files:
            if file.policy is not None:
                version = await self._store_version(file, now)
                in_force[version.model] = version
        stored = _find_newest(await self._log.all())
        broken = {str(file.path) for file in files if file.policy is None}
        for kept in self._find_last_good(stored, broken):
            in_force.setdefault(kept.model, kept)
        await self._withdraw_missing(stored, in_force, broken, any_file=bool(files), now=now)
        for file in files:
            if file.error is not None:
                self._log_failure(file.error, file.problems[0])
        problems = [problem for file in files for problem in file.problems]
        if not self._folder.is_dir():
            what = "there is no such policy folder"
            problems.append(PolicyError(str(self._folder), what, "Make it, or set policies_dir"))
        self._report_changes(in_force, problems)
        unchecked = [file.problems[0] for file in files if file.error is not None]
        self._book.settle(in_force, problems, failure=next(iter(unchecked), None))

    async def _store_version(self, file: Loaded, now: datetime) -> PolicyVersion:
        assert file.policy is not None
        stored = await self._log.apply(
            file.policy.model, yaml=file.text, sha256=file.sha256, path=str(file.path), now=now
        )
        version = self._book.remember(stored)
        assert version is not None  # its text has just been checked
        return version

    def _find_last_good(
        self, stored: Sequence[StoredPolicy], broken: Collection[str]
    ) -> list[PolicyVersion]:
        """Return the versions that broken files keep in force, one a file, also after a restart."""
        latest: dict[str, StoredPolicy] = {}
        for row in stored:
            if row.path in broken:
                latest.setdefault(row.path, row)
        known = [
            self._book.current(row.model) or self._book.remember(row) for row in latest.values()
        ]
        return [version for version in known if version is not None and version.path in broken]

    async def _withdraw_missing(
        self,
        stored: Sequence[StoredPolicy],
        in_force: Collection[str],
        broken: Collection[str],
        *,
        any_file: bool,
        now: datetime,
    ) -> None:
        if not self._folder.is_dir():  # not mounted, perhaps: that says nothing of any alias
            return
        for row in stored:
            # A folder that is empty from the start may not be mounted yet either.
            known = any_file or self._book.current(row.model) is not None
            if known and row.model not in in_force and row.path not in broken:
                await self._log.withdraw(row.model, now=now)

    def _report_changes(
        self, in_force: dict[str, PolicyVersion], problems: list[PolicyError]
    ) -> None:
        for version in in_force.values():
            before = self._book.current(version.model)
            if before is None or before.version != version.version:
                _log.info("policy_applied", model=version.model, version=version.version)
        for gone in self._book.all():
            if gone.model not in in_force:
                _log.warning("policy_gone", model=gone.model, path=gone.path)
        for problem in problems:
            if self._is_new(problem):
                _log.warning("policy_problem", where=problem.where, problem=problem.problem)

    def _log_failure(self, error: Exception, failure: PolicyError) -> None:
        if self._is_new(failure):  # once, though the check is repeated every few seconds
            found = traceback.extract_tb(error.__traceback__)
            at = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in found]
            reason = type(error).__name__
            _log.error("policy_not_checked", where=failure.where, reason=reason, at=at)

    def _is_new(self, problem: PolicyError) -> bool:
        return str(problem) not in map(str, self._book.problems())


def _find_newest(stored: Sequence[StoredPolicy]) -> list[StoredPolicy]:
    """Return each alias's version that was in force last and is not withdrawn, newest first."""
    latest: dict[str, StoredPolicy] = {}
    for row in sorted(stored, key=lambda row: (row.applied_at, row.version), reverse=True):
        latest.setdefault(row.model, row)
    return [row for row in latest.values() if row.withdrawn_at is None]


def _refuse_shared_aliases(files: Sequence[Loaded]) -> list[Loaded]:
    """Refuse files that name the alias of another file."""
    kept: list[Loaded] = []
    for file in files:
        others = [other for other in files if other is not file and _have_same_alias(file, other)]
        if others:
            line = read_document(file.text).line_of(("model",))
            names = ", ".join(str(other.path) for other in others)
            assert file.policy is not None
            problem = PolicyError(
                f"{file.path}:{line}",
                f"model is {file.policy.model}, as in {names}",
                "Keep one file for an alias",
            )
            kept.append(Loaded(file.path, None, file.text, (problem,)))
        else:
            kept.append(file)
    return kept


def _have_same_alias(one: Loaded, other: Loaded) -> bool:
    if one.policy is None or other.policy is None:
        return False
    return one.policy.model == other.policy.model


def _mark_unchecked(path: Path, text: str, error: Exception) -> Loaded:
    failure = _describe_failure(error, f"{shown_path(path)}:1")
    return Loaded(path, None, text, (failure,), error)


def _describe_failure(error: Exception, where: str) -> PolicyError:
    """Put an error of the check itself in words."""
    if isinstance(error, AdaptdError):
        return PolicyError(error.where, error.problem, error.remedy)
    return PolicyError(where, f"it could not be checked ({type(error).__name__})", _AGAIN)


def _stamp_files(folder: Path) -> tuple[_Stamp, ...]:
    """Stamp every file of the folder, golden files included; equal stamps mean no change."""
    found: list[_Stamp] = []
    for parent, folders, names in os.walk(folder):
        # A folder or a broken link may bear the name of a file, so their names count too.
        for name in (*folders, *names):
            path = Path(parent) / name
            try:
                seen = path.stat() if path.exists() else path.lstat()
            except OSError:
                continue
            found.append(_make_stamp(path, seen))
        if len(found) > _MOST_FILES:
            break
    return tuple(sorted(found))


def _make_stamp(path: Path, found: os.stat_result) -> _Stamp:
    if stat.S_ISDIR(found.st_mode):  # its times change with its files, which have stamps
        return str(path), 0, 0, 0, found.st_ino
    # A change of rights shows in the ctime alone.
    return str(path), found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
