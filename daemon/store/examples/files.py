"""Judged examples as files, so that a sandboxed child need not wait for all of them to be joined.

Below `home/examples/<alias>/` there is one Parquet file for each day on which interactions came in,
sealed as of a time that the store knows (`example_seals`). What changed since, be it late feedback
to an old interaction, is exported each time as the tail, and supersedes the sealed rows of the same
id. Files hold what people wrote: whoever removes events takes the seals back (`unseal`, `sweep`).
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
_EVER = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
# A run's `as_of` is when it was asked for: what is younger stays in the tail.
_UNSEALED = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Seal:
    sealed_to: datetime
    files: dict[date, Path]


@dataclass(frozen=True, slots=True)
class _Made:
    """Files that wait to be put in force: by day, with the number of their examples."""

    unsealings: int  # taken back so often before they were begun
    until: datetime
    written: dict[date, tuple[Path, int]]
    replaced: list[Path]


class ExampleFiles:
    """Seals examples day by day, and gathers what a child may read."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder

    async def gather(self, model: str, *, as_of: datetime, into: Path) -> Examples:
        """Every example of an alias that somebody had judged by `as_of`, as files in `into`."""
        return await self._database.aside(lambda cursor: self._gather(cursor, model, as_of, into))

    async def seal(self, model: str, *, now: datetime) -> bool:
        """Seal one more whole day (UTC), if there is one. Safe to repeat after a kill."""
        made = await self._database.aside(lambda cursor: self._make(cursor, model, now))
        if made is None:
            return False
        put = await self._database.write(lambda cursor: self._put_in_force(cursor, model, made))
        for path in made.replaced if put else [path for path, _ in made.written.values()]:
            path.unlink(missing_ok=True)
        return True

    async def forget(self) -> None:
        """Remove all files. They are made anew from what the store holds."""
        await self._database.write(unseal)
        await self.sweep()

    async def sweep(self) -> None:
        """Remove files that no seal names: of seals taken back, and of a killed process."""
        await self._database.aside(self._sweep)

    def _sweep(self, cursor: Connection) -> None:
        named = {self._folder / row["path"] for row in rows(cursor, _SQL["all_files"])}
        for path in self._folder.glob("*/*"):
            if path not in named:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _gather(self, cursor: Connection, model: str, as_of: datetime, into: Path) -> Examples:
        seal = self._seal_of(cursor, model)
        if seal is None or seal.sealed_to > as_of:
            seal = _Seal(_EVER, {})
        tail, touched = into / "tail.parquet", into / "touched.parquet"
        _export(cursor, model, since=seal.sealed_to, as_of=as_of, tail=tail, touched=touched)
        sealed = [into / path.name for path in seal.files.values()]
        for source, target in zip(seal.files.values(), sealed, strict=True):
            link(source, target)  # a later seal may remove the file itself
        return Examples(tail, touched, sealed)

    def _seal_of(self, cursor: Connection, model: str) -> _Seal | None:
        """None where there is none, of another release, or with a file missing (a restore)."""
        found = rows(cursor, _SQL["seal_of"], model=model)
        if not found or found[0]["columns"] != _columns(cursor):
            return None
        files = {
            row["day"]: self._folder / row["path"]
            for row in rows(cursor, _SQL["files_of"], model=model)
        }
        if not all(path.exists() for path in files.values()):
            return None
        return _Seal(found[0]["sealed_to"], files)

    def _next_seal(self, cursor: Connection, model: str, now: datetime) -> datetime | None:
        seal = self._seal_of(cursor, model)
        if seal is not None:
            last = seal.sealed_to
        else:
            last = rows(cursor, _SQL["first_ingested"], model=model)[0]["first"]
        if last is None:
            return None
        until = _day_of(last) + _DAY
        return until if until <= now - _UNSEALED else None

    def _make(self, cursor: Connection, model: str, now: datetime) -> _Made | None:
        """Write a new file for each day whose examples changed. None where no day is over."""
        until = self._next_seal(cursor, model, now)
        if until is None:
            return None
        unsealings = rows(cursor, _SQL["unsealings"])[0]["times"]
        seal = self._seal_of(cursor, model) or _Seal(_EVER, {})
        home = self._folder / _folder_name(model)
        work = home / f"sealing-{uuid.uuid4().hex}"
        work.mkdir(parents=True)
        try:
            tail, touched = work / "tail.parquet", work / "touched.parquet"
            _export(cursor, model, since=seal.sealed_to, as_of=until, tail=tail, touched=touched)
            written = {}
            for day in _changed_days(cursor, seal, tail, touched):
                path = home / f"{day.isoformat()}-{uuid.uuid4().hex[:8]}.parquet"
                old = seal.files.get(day)
                written[day] = (path, _write_day(cursor, day, path, old, tail, touched))
        finally:
            shutil.rmtree(work)
        replaced = [seal.files[day] for day in written if day in seal.files]
        return _Made(unsealings, until, written, replaced)

    def _put_in_force(self, cursor: Connection, model: str, made: _Made) -> bool:
        """False where the seals were taken back meanwhile: rows in the files are gone for good."""
        if rows(cursor, _SQL["unsealings"])[0]["times"] != made.unsealings:
            return False
        if self._seal_of(cursor, model) is None:  # what one left that cannot be used
            cursor.execute(_SQL["drop_files"], {"model": model})
        cursor.execute(_SQL["forget_files"], {"model": model, "days": list(made.written)})
        for day, (path, examples) in made.written.items():
            name = str(path.relative_to(self._folder))
            values = {"model": model, "day": day, "path": name, "examples": examples}
            cursor.execute(_SQL["add_file"], values)
        values = {"model": model, "sealed_to": made.until, "columns": _columns(cursor)}
        cursor.execute(_SQL["put_seal"], values)
        return True


def unseal(cursor: Connection) -> None:
    """Take all seals back. For the transaction that removes events: then call `sweep`."""
    for statement in ("drop_all_seals", "drop_all_files", "count_unsealing"):
        cursor.execute(_SQL[statement])


def _export(
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


def _columns(cursor: Connection) -> str:
    return rows(cursor, _SQL["example_columns"])[0]["digest"]


def _folder_name(model: str) -> str:
    """Any alias as one folder's name: no slash, and never a name of dots."""
    return quote(model, safe="").replace(".", "%2E")


def _day_of(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
