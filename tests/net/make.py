"""Make the artifacts: `python -m tests.net.make [home] [texts] [run]`, all of them by default.

They stand for an installation of the release that made them. Do not make them again because a test
that reads them fails: its failure says that what was written before can no longer be read.
"""

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from adaptd import IMPORT_ROOT
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.lifecycle.routes import RouteStore
from adaptd.serving.gateway.settings import load_settings
from tests.net.answers import Answers
from tests.net.artifacts import pack, record, unpack
from tests.net.gateway import gateway_file_of, leave_tokens, leave_traffic, waiting_lines
from tests.net.home import Home, settings_of
from tests.net.texts import all_texts
from tests.net.training import leave_run
from tests.support.tiny_model import make_tiny_base

# The same on every machine, since rows hold paths. Nothing may be there.
PLACE = Path("/tmp/adaptd-net")


def make_home() -> None:
    """The installation with its backup, and what the stores, tokens and spool say of it."""
    folder = PLACE / "installation"
    found = asyncio.run(_filled(folder))
    pack(folder, "installation")
    pack(PLACE / "backup", "backup")
    again = unpack("installation", PLACE / "again")
    found["spool"] = [line.decode() for line in waiting_lines(again / "home/gateway/spool")]
    found["gateway"] = load_settings(gateway_file_of(again / "home"))
    record("files", found)


async def _filled(folder: Path) -> dict[str, Any]:
    home = Home(folder)
    await home.fill()
    tokens = leave_tokens(home.home)
    (shop,) = [found["token"] for found in tokens if found["tenant"] == "shop"]
    table = await RouteStore(home.database).current()
    assert table is not None
    await leave_traffic(home.home, table, control=tokens[0]["token"], token=shop)
    await home.back_up(PLACE / "backup")
    now = home.clock()
    home.database.close()
    found = await _answers(home, now)
    record("store", found)
    return {"tokens": tokens, "asked_at": now}


async def _answers(home: Home, now: Any) -> dict[str, Any]:
    """As a daemon finds the store that is opened again."""
    database = Database.open(settings_of(PLACE / "installation").store_path, threads=1)
    try:
        answers = Answers(database, now, secret=home.secret, examples=home.home / "examples")
        return await answers.all(PLACE / "scratch")
    finally:
        database.close()


def make_texts() -> None:
    for name, found in all_texts().items():
        record(name, found())


def make_run() -> None:
    folder = PLACE / "training"
    (folder / "run").mkdir(parents=True)
    base = make_tiny_base(folder / "base")
    os.environ["PYTHONPATH"] = str(IMPORT_ROOT)
    os.chdir(folder / "run")
    found = leave_run(folder, base)
    shutil.rmtree(base)
    pack(folder, "training")
    record("training", found)


def main(asked: list[str]) -> int:
    makers = {"home": make_home, "texts": make_texts, "run": make_run}
    if PLACE.exists() or not set(asked) <= set(makers):
        print(f"{__doc__}\nNothing may be at {PLACE}.", file=sys.stderr)  # noqa: T201
        return 2
    PLACE.mkdir()
    try:
        for name in asked or makers:
            makers[name]()
    finally:
        _remove(PLACE)
    return 0


def _remove(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    os.chdir("/")
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
