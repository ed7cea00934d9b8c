"""Events on disk between the answer and the broker: NDJSON segments and an acknowledged position.

One thread appends, one reads and acknowledges. What `append` returned from survives kill -9 and a
power cut. After a crash the last line may be torn; a new process opens a new segment, so only the
end of an older one can be, and the reader passes over it.
"""

import fcntl
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from daemon.domain.errors import AdaptdError
from daemon.domain.files import replace_file, sync_directory
from daemon.domain.texts import NOT_DECODED

READ_BYTES = 4 << 20


class Position(msgspec.Struct, frozen=True, order=True):
    """Where reading goes on: everything before it is acknowledged."""

    segment: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines without their newlines, and the position after the last of them."""

    lines: list[bytes]
    end: Position


class SpoolBusyError(AdaptdError):
    """Another gateway process writes there."""


class Spool:
    """Lines in order, each at least once: a crash repeats those not yet acknowledged."""

    def __init__(self, directory: Path, *, segment_bytes: int) -> None:
        """Take the directory over, torn ends and all.

        Raises:
            SpoolBusyError: another process holds it.
            OSError: it cannot be written.
        """
        self._directory = directory
        self._segment_bytes = segment_bytes
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = self._take_lock()
        self._state = threading.Lock()
        self._position = self._load_position()
        older = self._segments()
        self._active = max([self._position.segment, *older]) + 1
        self._active_bytes = 0
        self._descriptor = self._create(self._active)
        self._depth = sum(self._count_lines(segment) for segment in older)
        self._bytes = sum(self._path(segment).stat().st_size for segment in older)

    def append(self, lines: list[bytes]) -> None:
        """Write lines and wait until they are on the disk.

        Raises:
            OSError: none of them is kept; try again.
        """
        data = b"".join(line + b"\n" for line in lines)
        try:
            self._write(data)
        except OSError:
            with suppress(OSError):  # else the next write goes over it
                os.ftruncate(self._descriptor, self._active_bytes)
            raise
        with self._state:
            self._active_bytes += len(data)
            self._bytes += len(data)
            self._depth += len(lines)
        if self._active_bytes >= self._segment_bytes:
            with suppress(OSError):  # the lines are safe; the next append tries again
                self._rotate()

    def read(self, limit: int = 500) -> Batch | None:
        """The next lines after the acknowledged position, or None. They stay until acknowledged."""
        position = self._position
        while True:
            with self._state:
                active, durable = self._active, self._active_bytes
            end = durable if position.segment == active else self._size(position.segment)
            lines, read_bytes = self._lines(position, end - position.offset, limit)
            if lines:
                return Batch(lines, Position(position.segment, position.offset + read_bytes))
            if position.segment >= active:
                return None
            position = Position(position.segment + 1)  # its end, torn or not

    def acknowledge(self, batch: Batch) -> None:
        """Never give these lines again, and delete the segments that are done with.

        Raises:
            OSError: the position is not kept; a crash now would repeat the lines.
        """
        replace_file(self._directory / "position.json", msgspec.json.encode(batch.end))
        with self._state:
            self._position = batch.end
            self._depth = max(0, self._depth - len(batch.lines))
        for segment in self._segments():
            if segment < batch.end.segment:
                self._delete(segment)

    def set_aside(self, line: bytes) -> None:
        """Keep a line that the receiver will never take, for a person to look at."""
        with (self._directory / "refused.ndjson").open("ab") as file:
            file.write(line + b"\n")

    @property
    def depth(self) -> int:
        """Lines not yet acknowledged."""
        return self._depth

    @property
    def size_bytes(self) -> int:
        """What the segments take on disk."""
        return self._bytes

    def close(self) -> None:
        os.close(self._descriptor)
        if self._active_bytes == 0:
            self._path(self._active).unlink(missing_ok=True)
        os.close(self._lock)

    def _take_lock(self) -> int:
        """A record lock: children that vLLM forks do not inherit it, so it ends with us."""
        lock = os.open(self._directory / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise SpoolBusyError(
                str(self._directory), "another gateway spools there", "Give each its own directory"
            ) from error
        return lock

    def _load_position(self) -> Position:
        """Without a position everything is sent again; the store knows copies by their id."""
        try:
            content = (self._directory / "position.json").read_bytes()
            return msgspec.json.decode(content, type=Position)
        except (FileNotFoundError, *NOT_DECODED):
            return Position(min(self._segments(), default=0))

    def _segments(self) -> list[int]:
        return sorted(int(path.stem) for path in self._directory.glob("[0-9]*.ndjson"))

    def _path(self, segment: int) -> Path:
        return self._directory / f"{segment:012d}.ndjson"

    def _size(self, segment: int) -> int:
        try:
            return self._path(segment).stat().st_size
        except FileNotFoundError:
            return 0

    def _create(self, segment: int) -> int:
        """An empty segment. One that a failed rotation left is taken."""
        descriptor = os.open(self._path(segment), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            sync_directory(self._directory)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _write(self, data: bytes) -> None:
        """Put data after the last good byte, whatever a failed write left there."""
        written = 0
        while written < len(data):
            at = self._active_bytes + written
            written += os.pwrite(self._descriptor, data[written:], at)
        os.fsync(self._descriptor)

    def _rotate(self) -> None:
        following = self._create(self._active + 1)
        os.close(self._descriptor)
        self._descriptor = following
        with self._state:
            self._active += 1
            self._active_bytes = 0

    def _lines(self, position: Position, size: int, limit: int) -> tuple[list[bytes], int]:
        """Whole lines among the next `size` bytes, and how many bytes they take."""
        try:
            with self._path(position.segment).open("rb") as file:
                file.seek(position.offset)
                data = file.read(min(size, READ_BYTES)) if size > 0 else b""
                if b"\n" not in data and len(data) < size:
                    data += file.read(size - len(data))
        except FileNotFoundError:
            return [], 0
        lines = data[: data.rfind(b"\n") + 1].split(b"\n")[:-1][:limit]
        return lines, sum(len(line) + 1 for line in lines)

    def _count_lines(self, segment: int) -> int:
        if segment < self._position.segment:
            return 0
        start = self._position.offset if segment == self._position.segment else 0
        with self._path(segment).open("rb") as file:
            file.seek(start)
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))

    def _delete(self, segment: int) -> None:
        with self._state:
            self._bytes -= self._size(segment)
        self._path(segment).unlink(missing_ok=True)
