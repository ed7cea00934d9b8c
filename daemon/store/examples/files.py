"""Judged examples in files, so that a sandboxed child need not wait for a join over all of them.

`home/examples/<alias>/` holds one Parquet file for each day on which interactions came in, sealed
as of a time that the store knows (`example_seals`). Changes since then, such as late feedback to an
old interaction, are exported each time as the tail, and replace the sealed rows of the same id. The
files hold people's texts: code that removes events takes the seals back (`unseal`, `sweep`).
"""

import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.examples.sandbox import Examples, link

_SQL = statements("examples")
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
# A run's `as_of` is the time of its request: younger rows stay in the tail.
_UNSEALED = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Seal:
    sealed_to: datetime
    files: dict[date, Path]


@dataclass(frozen=True, slots=True)
class _NewFiles:
    """New files that are not in force yet: by day, with the number of their examples."""

    unsealings: int  # how often seals were taken back before these files were begun
    until: datetime
    written: dict[date, tuple[Path, int]]
    replaced: list[Path]


class ExampleFiles:
    """Seals examples day by day, and gathers the files that a child may read."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder

    async def gather(self, model: str, *, as_of: datetime, into: Path) -> Examples:
        """Put every example of an alias that was judged by `as_of` into files in `into`."""
        return await self._database.run_beside(
            lambda cursor: self._gather_files(cursor, model, as_of, into)
        )

    async def seal(self, model: str, *, now: datetime) -> bool:
        """Seal one more whole day (UTC), if there is one. Safe to repeat after a kill."""
        made = await self._database.run_beside(lambda cursor: self._write_files(cursor, model, now))
        if made is None:
            return False
        put = await self._database.write(lambda cursor: self._put_in_force(cursor, model, made))
        # Outside the transaction: a kill here leaves files that the next sweep removes.
        for path in made.replaced if put else [path for path, _ in made.written.values()]:
            path.unlink(missing_ok=True)
        return True

    async def remove_all(self) -> None:
        """Remove all files. Later seals make them again from the store."""
        await self._database.write(unseal)
        await self.sweep()

    async def sweep(self) -> None:
        """Remove files that no seal names: those of seals taken back and of a killed process."""
        await self._database.run_beside(self._sweep_files)

    def _sweep_files(self, cursor: Connection) -> None:
        named = {self._folder / row["path"] for row in rows(cursor, _SQL["all_files"])}
        for path in self._folder.glob("*/*"):
            if path not in named:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _gather_files(
        self, cursor: Connection, model: str, as_of: datetime, into: Path
    ) -> Examples:
        seal = self._load_seal(cursor, model)
        if seal is None or seal.sealed_to > as_of:  # sealed files would show later rows
            seal = _Seal(_BEGINNING, {})
        tail, touched = into / "tail.parquet", into / "touched.parquet"
        _export_changes(
            cursor, model, since=seal.sealed_to, as_of=as_of, tail=tail, touched=touched
        )
        sealed = [into / path.name for path in seal.files.values()]
        for source, target in zip(seal.files.values(), sealed, strict=True):
            link(source, target)  # a later seal may remove the file itself
        return Examples(tail, touched, sealed)

    def _load_seal(self, cursor: Connection, model: str) -> _Seal | None:
        # None: no seal, one of another release, or one with a file missing (after a restore).
        found = rows(cursor, _SQL["seal_of"], model=model)
        if not found or found[0]["columns"] != _digest_columns(cursor):
            return None
        files = {
            row["day"]: self._folder / row["path"]
            for row in rows(cursor, _SQL["files_of"], model=model)
        }
        if not all(path.exists() for path in files.values()):
            return None
        return _Seal(found[0]["sealed_to"], files)

    def _next_seal(self, cursor: Connection, model: str, now: datetime) -> datetime | None:
        seal = self._load_seal(cursor, model)
        if seal is not None:
            last = seal.sealed_to
        else:
            last = rows(cursor, _SQL["first_ingested"], model=model)[0]["first"]
        if last is None:
            return None
        until = _start_of_day(last) + _DAY  # one day a call: other long work gets its turn
        return until if until <= now - _UNSEALED else None

    def _write_files(self, cursor: Connection, model: str, now: datetime) -> _NewFiles | None:
        """Write a new file for each day with changed examples. None where no day is over."""
        until = self._next_seal(cursor, model, now)
        if until is None:
            return None
        # Read first: an erasure during the export makes this seal void.
        unsealings = rows(cursor, _SQL["unsealings"])[0]["times"]
        seal = self._load_seal(cursor, model) or _Seal(_BEGINNING, {})
        home = self._folder / _folder_name(model)
        work = home / f"sealing-{uuid.uuid4().hex}"
        work.mkdir(parents=True)
        try:
            tail, touched = work / "tail.parquet", work / "touched.parquet"
            _export_changes(
                cursor, model, since=seal.sealed_to, as_of=until, tail=tail, touched=touched
            )
            written = {}
            for day in _changed_days(cursor, seal, tail, touched):
                # A fresh name each time: children may still read the old file.
                path = home / f"{day.isoformat()}-{uuid.uuid4().hex[:8]}.parquet"
                old = seal.files.get(day)
                written[day] = (path, _write_day(cursor, day, path, old, tail, touched))
        finally:
            shutil.rmtree(work)
        replaced = [seal.files[day] for day in written if day in seal.files]
        return _NewFiles(unsealings, until, written, replaced)

    def _put_in_force(self, cursor: Connection, model: str, made: _NewFiles) -> bool:
        # Seals taken back meanwhile: some of the files' rows are gone for good.
        if rows(cursor, _SQL["unsealings"])[0]["times"] != made.unsealings:
            return False
        if self._load_seal(cursor, model) is None:  # files of a seal that cannot be used
            cursor.execute(_SQL["drop_files"], {"model": model})
        cursor.execute(_SQL["forget_files"], {"model": model, "days": list(made.written)})
        for day, (path, examples) in made.written.items():
            name = str(path.relative_to(self._folder))
            values = {"model": model, "day": day, "path": name, "examples": examples}
            cursor.execute(_SQL["add_file"], values)
        values = {"model": model, "sealed_to": made.until, "columns": _digest_columns(cursor)}
        cursor.execute(_SQL["put_seal"], values)
        return True


def unseal(cursor: Connection) -> None:
    """Take all seals back, inside the transaction that removes events. Call `sweep` after it."""
    for statement in ("drop_all_seals", "drop_all_files", "count_unsealing"):
        cursor.execute(_SQL[statement])


def _export_changes(
    cursor: Connection, model: str, *, since: datetime, as_of: datetime, tail: Path, touched: Path
) -> None:
    values = {"model": model, "since": since, "as_of": as_of}
    cursor.execute(_SQL["export_judged"], values | {"path": str(tail)})
    cursor.execute(_SQL["export_touched"], values | {"path": str(touched)})


def _changed_days(cursor: Connection, seal: _Seal, tail: Path, touched: Path) -> Iterable[date]:
    days = {row["day"] for row in rows(cursor, _SQL["days_in"], paths=[str(tail)])}
    if seal.files:
        sealed = [str(path) for path in seal.files.values()]
        found = rows(cursor, _SQL["days_touched"], paths=sealed, touched=str(touched))
        days |= {row["day"] for row in found}
    return sorted(days)


def _write_day(
    cursor: Connection, day: date, path: Path, old: Path | None, changed: Path, touched: Path
) -> int:
    values = {"day": day, "path": str(path), "changed": str(changed)}
    if old is None:
        return rows(cursor, _SQL["write_day"], **values)[0]["Count"]
    more = {"old": str(old), "touched": str(touched)}
    return rows(cursor, _SQL["rewrite_day"], **values, **more)[0]["Count"]


def _digest_columns(cursor: Connection) -> str:
    return rows(cursor, _SQL["example_columns"])[0]["digest"]


def _folder_name(model: str) -> str:
    # No slash, and never a name of dots.
    return quote(model, safe="").replace(".", "%2E")


def _start_of_day(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
