"""Policy SQL over examples, in a child process that sees its alias's files (`sandbox_child`).

The child has limits on memory, processor time and files; the parent kills it at the wall limit.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from adaptd.daemon.wire.errors import AdaptdError

_MESSAGE_LIMIT = 400
_ORDER = ("time", "id", "tenant")
_READ_ROWS = 512  # at a time: 64 took 3 s more for 300,000


class SandboxError(AdaptdError):
    """The expression was refused, failed, or went past a limit."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Files of one alias: the tail, and sealed rows but for those whose id is in `touched`."""

    tail: Path
    touched: Path | None = None
    sealed: Sequence[Path] = ()


class Sandbox:
    """Runs one expression at a time over Parquet files of examples."""

    def __init__(
        self,
        *,
        memory_mb: int = 1024,
        cpu_s: int = 60,
        wall_s: float = 600,  # a starved machine gives it a tenth of a core
        threads: int = 2,
        result_mb: int = 1024,
    ) -> None:
        """`memory_mb` is DuckDB's; the process as a whole may have 1 GiB more.

        `result_mb` is what the rows it finds may take in ours, as Arrow.
        """
        self._result_mb = result_mb
        self._limits = {"memory_mb": memory_mb, "cpu_s": cpu_s, "threads": threads}
        self._wall_s = wall_s

    async def select(
        self, examples: Examples | Path, where: str, *, as_of: datetime, judged_only: bool = False
    ) -> pa.Table:
        """The rows of `examples` that the expression holds for, by time, id and tenant.

        `judged_only` leaves out rows that nobody rated or corrected.

        Raises:
            SandboxError: the expression is refused, or failed, or took or found too much.
        """
        given = Examples(examples) if isinstance(examples, Path) else examples
        with tempfile.TemporaryDirectory(prefix="sandbox-", dir=given.tail.parent) as name:
            out = Path(name) / "out" / "selected.parquet"
            out.parent.mkdir()
            files = await asyncio.to_thread(_linked, given, Path(name))
            job = files | {"out": str(out), "where": where, "judged_only": judged_only}
            await self._run(job | {"as_of": as_of.astimezone(UTC).isoformat()} | self._limits)
            return await asyncio.to_thread(lambda: _in_order(_read(out, self._result_mb)))

    async def check(self, examples: Path, where: str, *, as_of: datetime) -> None:
        """Try the expression on one example without any value. Give it a file without rows.

        Raises:
            SandboxError: the expression is refused or does not fit the columns.
        """
        job = {"examples": str(examples), "out": None, "where": where}
        await self._run(job | {"as_of": as_of.astimezone(UTC).isoformat()} | self._limits)

    async def _run(self, job: dict[str, Any]) -> None:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "adaptd.daemon.store.examples.sandbox_child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        try:
            async with asyncio.timeout(self._wall_s):
                answer, _ = await child.communicate(json.dumps(job).encode())
        except TimeoutError as error:
            problem = f"it took longer than {self._wall_s:g} s"
            raise SandboxError("where", problem, "Simplify it") from error
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        self._raise_refusal(answer, child.returncode)

    def _raise_refusal(self, answer: bytes, code: int | None) -> None:
        try:
            told = json.loads(answer)
        except ValueError:
            told = {"problem": self._went_past(code), "remedy": "Simplify it"}
        if "problem" in told:
            raise SandboxError("where", told["problem"][:_MESSAGE_LIMIT], told["remedy"])

    def _went_past(self, code: int | None) -> str:
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            return f"it took more than {self._limits['cpu_s']} s of processor time"
        return f"it went past its limits (exit {code})"


def _linked(examples: Examples, folder: Path) -> dict[str, Any]:
    """The files in the child's own folder, as its job names them."""
    tail = folder / "tail.parquet"
    link(examples.tail, tail)
    touched = None
    if examples.touched is not None:
        touched = folder / "touched.parquet"
        link(examples.touched, touched)
    sealed = [folder / f"sealed-{number}.parquet" for number in range(len(examples.sealed))]
    for source, target in zip(examples.sealed, sealed, strict=True):
        link(source, target)
    return {
        "examples": str(tail),
        "touched": touched and str(touched),
        "sealed": [str(path) for path in sealed],
    }


def _read(path: Path, most_mb: int) -> pa.Table:
    """A result, as long as it fits. A small file can hold much: the same text over and over."""
    batches: list[pa.RecordBatch] = []
    left_bytes = most_mb << 20
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_READ_ROWS):
            batches.append(batch)
            left_bytes -= batch.nbytes
            if left_bytes < 0:
                problem = f"it holds for more than {most_mb} MiB of examples"
                raise SandboxError("where", problem, "Narrow it, for instance to fewer days")
        return pa.Table.from_batches(batches, file.schema_arrow)


def _in_order(table: pa.Table) -> pa.Table:
    """The same however the examples are spread over files. The child has no memory to sort them."""
    keys = [(name, "ascending") for name in _ORDER if name in table.column_names]
    sort_indices: Any = pyarrow.compute.sort_indices  # pyright: ignore[reportAttributeAccessIssue] - made at import
    return table.take(sort_indices(table, sort_keys=keys)) if keys else table


def link(source: Path, target: Path) -> None:
    """The same file under another name; a copy on another file system."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)
