"""The process that policy SQL runs in, started with `python -m`; its job comes on stdin.

It can read the examples and write the result. No extensions, no other file, no network, a locked
configuration; `now()` is the snapshot's time.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import duckdb

from adaptd.daemon.store.examples.where_expression import Refused, check_expression

_OVERHEAD_BYTES = 1 << 30  # address space of Python, DuckDB's code and its threads' stacks
_FILE_BYTES = 8 << 30
_FILES = 1024  # one of sealed examples for each day there were any
_BEFORE_ANY_ROW = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)
_TOO_MUCH_MEMORY = {"problem": "it needs too much memory", "remedy": "Simplify it"}


def main() -> None:
    """Job in, a file and one JSON line out."""
    job = json.load(sys.stdin)
    _limit(job)
    sys.stdout.write(json.dumps(_answer(job)))


def _limit(job: dict[str, Any]) -> None:
    memory_bytes = job["memory_mb"] * (1 << 20) + _OVERHEAD_BYTES
    limits = {
        resource.RLIMIT_AS: (memory_bytes, memory_bytes),
        resource.RLIMIT_CPU: (job["cpu_s"], job["cpu_s"] + 1),
        resource.RLIMIT_FSIZE: (_FILE_BYTES, _FILE_BYTES),
        resource.RLIMIT_NOFILE: (_FILES, _FILES),
        resource.RLIMIT_CORE: (0, 0),
    }
    for kind, values in limits.items():
        resource.setrlimit(kind, values)


def _answer(job: dict[str, Any]) -> dict[str, str]:
    connection = locked_connection(job)
    try:
        _work(connection, job)
    except Refused as refused:
        return {"problem": refused.problem, "remedy": refused.remedy}
    except (MemoryError, duckdb.OutOfMemoryException):
        return _TOO_MUCH_MEMORY
    except duckdb.Error as error:
        return {"problem": _words(connection, error), "remedy": "Correct the expression"}
    return {}


def _words(connection: duckdb.DuckDBPyConnection, error: duckdb.Error) -> str:
    """What DuckDB says; its kind alone where it may quote the value of an example."""
    text = str(error).splitlines()[0]
    rows = connection.execute("SELECT count(*) FROM numbered").fetchone()
    if isinstance(error, _BEFORE_ANY_ROW) or rows == (0,):
        return text
    return f"it fails on some example ({text.partition(':')[0]})"


def _work(connection: duckdb.DuckDBPyConnection, job: dict[str, Any]) -> None:
    columns = check_where(connection, job["where"])
    if job["out"] is None:
        connection.execute(f"SELECT (\n{job['where']}\n) FROM nobody").fetchall()  # noqa: S608 - checked
        return
    only = "len(corrections) + len(ratings) > 0" if job["judged_only"] else "true"
    names = ", ".join(f'"{column}"' for column in columns)
    condition = f"{only} AND (\n{job['where']}\n)"  # checked above; this process is the sandbox
    chosen = f"SELECT {names} FROM examples WHERE {condition}"  # noqa: S608 - see above
    out = _quoted(job["out"])
    connection.execute(f"COPY ({chosen}) TO {out} (FORMAT parquet, COMPRESSION zstd)")


def locked_connection(job: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    """A connection that can read the job's examples, write beside them and nothing else.

    `now()`, `current_timestamp` and `current_date` are the job's `as_of`: the first is a macro that
    hides DuckDB's own, the others are columns, which win over the session's words.
    """
    threads = str(job.get("threads", 1))
    config: dict[str, Any] = {"memory_limit": f"{job['memory_mb']}MB", "threads": threads}
    connection = duckdb.connect(":memory:", config=config)
    as_of = f"TIMESTAMPTZ {_quoted(job['as_of'])}"
    folder = _quoted(str(Path(job["examples"]).parent))
    for statement in (
        "SET TimeZone = 'UTC'",
        f"CREATE MACRO now() AS {as_of}",
        "SET temp_directory = ''",
        "SET autoload_known_extensions = false",
        "SET autoinstall_known_extensions = false",
        f"SET allowed_directories = [{folder}]",
        "SET enable_external_access = false",  # after the directories: before, they are refused
        "SET lock_configuration = true",
    ):
        connection.execute(statement)
    connection.execute(f"CREATE VIEW numbered AS {_rows(job)}")
    times = f"{as_of} AS current_timestamp, {as_of}::DATE AS current_date"
    connection.execute(f"CREATE VIEW examples AS SELECT *, {times} FROM numbered")  # noqa: S608 - our own time
    one = f"SELECT n.*, {times} FROM (SELECT 1) LEFT JOIN numbered n ON false"  # noqa: S608 - our own time
    connection.execute(f"CREATE VIEW nobody AS {one}")
    return connection


def _rows(job: dict[str, Any]) -> str:
    """Sealed rows but for those that changed since, and the tail."""
    tail = f"FROM read_parquet({_quoted(job['examples'])})"
    if not job.get("sealed"):
        return tail
    sealed = ", ".join(_quoted(path) for path in job["sealed"])
    touched = f"FROM read_parquet({_quoted(job['touched'])})"
    return f"FROM read_parquet([{sealed}]) WHERE id NOT IN ({touched}) UNION ALL BY NAME {tail}"


def check_where(connection: duckdb.DuckDBPyConnection, where: str) -> list[str]:
    """Refuse what is no condition over the examples' columns; returns these.

    Raises:
        Refused: with the problem and the remedy.
        duckdb.Error: it does not fit the columns' types.
    """
    rows = connection.execute("DESCRIBE numbered").fetchall()
    columns = [row[0] for row in rows]
    check_expression(connection, where, columns)
    described = connection.execute(f"DESCRIBE SELECT (\n{where}\n) FROM examples")  # noqa: S608 - as above
    kind = (described.fetchone() or ("", "nothing"))[1]
    if kind != "BOOLEAN":
        # DuckDB itself would cast a number or a text
        raise Refused(f"it gives {kind}, not true or false", "Compare it with something")
    return columns


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


if __name__ == "__main__":
    main()
