"""Policy SQL runs here and nowhere else: a child process that sees one file of examples.

The child has limits on memory, processor time and open files, no extensions, no access beyond its
two folders, a locked configuration, and `now()` frozen at the snapshot's time. The parent kills it
at the wall limit. Parent: `Sandbox`. Child: `python -m daemon.store.sandbox`, its job on stdin.
"""

import asyncio
import json
import os
import resource
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from daemon.domain.errors import AdaptdError
from daemon.store.expression import Refused, check_expression

_MEMORY_BYTES = 4 << 30  # address space; DuckDB itself gets the job's memory_mb
_MESSAGE_LIMIT = 400


class SandboxError(AdaptdError):
    """The expression was refused, failed, or went past a limit."""


class Sandbox:
    """Runs one expression at a time over a Parquet file of examples."""

    def __init__(self, *, memory_mb: int = 1024, cpu_s: int = 60, wall_s: float = 90) -> None:
        self._limits = {"memory_mb": memory_mb, "cpu_s": cpu_s}
        self._wall_s = wall_s

    async def select(
        self, examples: Path, where: str, *, as_of: datetime, judged_only: bool = False
    ) -> pa.Table:
        """The rows of `examples` that the expression holds for, in their order.

        `judged_only` leaves out those without a rating or correction: most of them.

        Raises:
            SandboxError: the expression is refused, or failed, or took too much.
        """
        with tempfile.TemporaryDirectory(prefix="adaptd-sandbox-") as name:
            folder = Path(name)
            source, out = folder / "examples.parquet", folder / "out" / "selected.parquet"
            out.parent.mkdir()
            _link(examples, source)
            job: dict[str, Any] = {"examples": str(source), "out": str(out), "where": where}
            job["judged_only"] = judged_only
            await self._run(job | {"as_of": as_of.astimezone(UTC).isoformat()} | self._limits)
            return await asyncio.to_thread(pq.read_table, out)

    async def check(self, examples: Path, where: str, *, as_of: datetime) -> None:
        """Run the expression for its errors only. Give it a file without rows.

        Raises:
            SandboxError: the expression is refused or does not fit the columns.
        """
        await self.select(examples, where, as_of=as_of)

    async def _run(self, job: dict[str, Any]) -> None:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "daemon.store.sandbox",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        try:
            async with asyncio.timeout(self._wall_s):
                answer, _ = await child.communicate(json.dumps(job).encode())
        except TimeoutError as error:
            raise SandboxError(
                "where", f"it took longer than {self._wall_s:.0f} s", "Simplify it"
            ) from error
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        _raise_refusal(answer, child.returncode)


def _raise_refusal(answer: bytes, code: int | None) -> None:
    try:
        told = json.loads(answer)
    except ValueError:
        told = {"problem": f"it went past its limits (exit {code})", "remedy": "Simplify it"}
    if "problem" in told:
        raise SandboxError("where", told["problem"][:_MESSAGE_LIMIT], told["remedy"])


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _limit(job: dict[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (job["cpu_s"], job["cpu_s"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _locked(job: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    """A connection that can read the examples, write the result and nothing else."""
    config: dict[str, Any] = {"memory_limit": f"{job['memory_mb']}MB", "threads": "1"}
    connection = duckdb.connect(":memory:", config=config)
    as_of = job["as_of"]
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"CREATE MACRO now() AS TIMESTAMPTZ '{as_of}'")
    connection.execute("SET temp_directory = ''")
    connection.execute("SET autoload_known_extensions = false")
    connection.execute("SET autoinstall_known_extensions = false")
    folders = [str(Path(job["examples"]).parent)]
    connection.execute(f"SET allowed_directories = {folders!r}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _work(job: dict[str, Any]) -> None:
    connection = _locked(job)
    # `file_row_number` keeps the order of the file whatever the filter does.
    source = f"read_parquet('{job['examples']}', file_row_number = true)"
    connection.execute(f"CREATE VIEW numbered AS FROM {source}")
    described = connection.execute("DESCRIBE numbered").fetchall()
    columns = [row[0] for row in described if row[0] != "file_row_number"]
    check_expression(connection, job["where"], columns)
    as_of = job["as_of"]
    connection.execute(
        f"CREATE VIEW examples AS SELECT *, TIMESTAMPTZ '{as_of}' AS current_timestamp, "  # noqa: S608 - our own time, not input
        f"TIMESTAMPTZ '{as_of}'::DATE AS current_date FROM numbered"
    )
    only = "len(corrections) + len(ratings) > 0" if job["judged_only"] else "true"
    names = ", ".join(f'"{column}"' for column in columns)
    condition = f"{only} AND (\n{job['where']}\n)"  # checked above; this process is the sandbox
    chosen = f"SELECT {names} FROM examples WHERE {condition} ORDER BY file_row_number"  # noqa: S608
    connection.execute(f"COPY ({chosen}) TO '{job['out']}' (FORMAT parquet, COMPRESSION zstd)")


def _answer(job: dict[str, Any]) -> dict[str, str]:
    try:
        _work(job)
    except Refused as refused:
        return {"problem": refused.problem, "remedy": refused.remedy}
    except (duckdb.Error, MemoryError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        return {"problem": text, "remedy": "Correct the expression; `adaptd policy check` tries it"}
    return {}


def main() -> None:
    """The child: job in, files and one JSON line out."""
    job = json.load(sys.stdin)
    _limit(job)
    sys.stdout.write(json.dumps(_answer(job)))


if __name__ == "__main__":
    main()
