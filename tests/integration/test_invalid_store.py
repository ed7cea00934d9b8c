"""A store that DuckDB declared invalid ends the process: only the next one can use it."""

import subprocess
import sys

PROGRAM = """
import duckdb
from daemon.store.database import Database
database = Database.open(":memory:")
def work(cursor):
    raise duckdb.FatalException("the database has been invalidated: my prompt")
database.write_now(work)
"""


def test_the_process_ends_with_70_and_a_word_that_quotes_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 70
    assert "Restart adaptd" in done.stderr
    assert "prompt" not in done.stderr
