"""A store that DuckDB declared invalid ends the process: only the next one can use it."""

import subprocess
import sys
from pathlib import Path

from tests.support.waiting import LIMIT_S

PROGRAM = """
import duckdb
from adaptd.daemon.store.database.database import Database
database = Database.open(":memory:")
def work(cursor):
    raise duckdb.FatalException("the database has been invalidated: my prompt")
database.write_now(work)
"""

EXCHANGED = """
import asyncio, sys
from pathlib import Path
from adaptd.daemon.store.database.database import Database
store = Path(sys.argv[1])
database = Database.open(store)
store.rename(store.with_suffix(".moved"))
store.mkdir()
asyncio.run(database.refresh())
"""


def test_the_process_ends_with_70_and_a_word_that_quotes_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 70
    assert "Restart adaptd" in done.stderr
    assert "prompt" not in done.stderr


def test_a_store_that_cannot_be_opened_again_ends_the_process_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXCHANGED, str(tmp_path / "store.duckdb")],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 70
    assert "cannot be opened again" in done.stderr
    assert "Traceback" not in done.stderr
