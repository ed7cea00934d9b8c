"""Events on disk between the answer and the broker: NDJSON segments and an acknowledged position.

One thread appends, one reads and acknowledges. Lines that `append` has written survive kill -9 and
a power cut. After a crash the last line may be torn; a new process opens a new segment, so only the
end of an older one can be, and the reader passes over it.
"""

import errno
import os
import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from adaptd.daemon.wire.errors import AdaptdError
from adaptd.daemon.wire.texts import NOT_DECODED
from adaptd.serving.capture.disk import Disk

READ_BYTES = 4 << 20
_BLOCK_BYTES = 1 << 20
_SEGMENT = re.compile(r"(\d+)\.ndjson")


class Position(msgspec.Struct, frozen=True, order=True):
    """The position that reading goes on from: everything before it is acknowledged."""

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
    """Lines in order, each given at least once: a crash repeats those not yet acknowledged."""

    def __init__(self, directory: Path, *, segment_bytes: int, disk: Disk | None = None) -> None:
        """Take the directory over, with segments that earlier processes left.

        Raises:
            SpoolBusyError: another process holds it.
            OSError: it cannot be read or written. Nothing stays open; try again.
        """
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._disk = disk or Disk()
        self._disk.make_directory(directory)
        self._lock = self._take_lock()
        self._state = threading.Lock()
        try:
            self._position = self._load_position()
            older = self._list_segments()
            self._depth = sum(self._count_lines(segment) for segment in older)
            self._bytes = sum(self._segment_size(segment) for segment in older)
            self._active = max([self._position.segment, *older]) + 1
            self._active_bytes = 0
            self._descriptor = self._create_segment(self._active)
        except OSError:
            self._disk.close(self._lock)
            raise

    def append(self, lines: list[bytes]) -> None:
        """Write lines and wait until they are on the disk.

        Raises:
            OSError: none of them is kept; try again.
        """
        data = b"".join(line + b"\n" for line in lines)
        try:
            self._write_at(self._descriptor, data, self._active_bytes)
        except OSError:
            with suppress(OSError):  # else the next write goes over it
                self._disk.cut(self._descriptor, self._active_bytes)
            raise
        with self._state:
            self._active_bytes += len(data)
            self._bytes += len(data)
            self._depth += len(lines)
        if self._active_bytes >= self._segment_bytes:
            with suppress(OSError):  # the lines are safe; the next append tries again
                self._rotate_segment()

    def read(self, limit: int = 500) -> Batch | None:
        """Read the next lines after the acknowledged position; None where there are none.

        Lines stay until they are acknowledged.

        Raises:
            OSError: a segment cannot be read; try again.
        """
        position = self._position
        while True:
            with self._state:
                active, durable = self._active, self._active_bytes
            segment = position.segment
            end = durable if segment == active else self._segment_size(segment)
            lines, read_bytes = self._read_lines(position, end - position.offset, limit)
            if lines:
                return Batch(lines, Position(segment, position.offset + read_bytes))
            if segment >= active:
                return None
            position = Position(segment + 1)  # its end, torn or not

    def acknowledge(self, batch: Batch) -> None:
        """Give these lines never again, and delete the segments before them.

        Raises:
            OSError: the position is not kept; a crash now would repeat the lines.
        """
        content = msgspec.json.encode(batch.end)
        self._disk.replace_file(self._directory / "position.json", content)
        with self._state:
            self._position = batch.end
            self._depth = max(0, self._depth - len(batch.lines))
        with suppress(OSError):  # `size_bytes` counts what stays; the next call tries again
            for segment in self._list_segments():
                if segment < batch.end.segment:
                    self._delete_segment(segment)

    def set_aside(self, line: bytes) -> None:
        """Keep a line that the receiver refuses for good, for a person to look at.

        Raises:
            OSError: it is not kept; try again.
        """
        path = self._directory / "refused.ndjson"
        descriptor = self._disk.open(path, os.O_WRONLY | os.O_CREAT)
        try:
            end = self._disk.size_bytes(path)
            try:
                self._write_at(descriptor, line + b"\n", end)
            except OSError:
                with suppress(OSError):
                    self._disk.cut(descriptor, end)
                raise
        finally:
            self._disk.close(descriptor)

    @property
    def depth(self) -> int:
        """Lines not yet acknowledged."""
        return self._depth

    @property
    def size_bytes(self) -> int:
        """The size of the segments on disk."""
        return self._bytes

    def close(self) -> None:
        try:
            self._disk.close(self._descriptor)
            if self._active_bytes == 0:
                self._disk.remove(self._segment_path(self._active))
        finally:
            self._disk.close(self._lock)

    def _take_lock(self) -> int:
        lock = self._disk.open(self._directory / "lock", os.O_WRONLY | os.O_CREAT)
        try:
            self._disk.lock(lock)
        except OSError as error:
            self._disk.close(lock)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise SpoolBusyError(
                str(self._directory), "another gateway spools there", "Give each its own directory"
            ) from error
        return lock

    def _load_position(self) -> Position:
        try:
            content = self._disk.read_file(self._directory / "position.json")
            return msgspec.json.decode(content, type=Position)
        except (FileNotFoundError, *NOT_DECODED):
            # Everything is sent again; the store knows copies by their id.
            return Position(min(self._list_segments(), default=0))

    def _list_segments(self) -> list[int]:
        names = self._disk.names(self._directory)
        return sorted(int(found[1]) for name in names if (found := _SEGMENT.fullmatch(name)))

    def _segment_path(self, segment: int) -> Path:
        return self._directory / f"{segment:012d}.ndjson"

    def _segment_size(self, segment: int) -> int:
        try:
            return self._disk.size_bytes(self._segment_path(segment))
        except FileNotFoundError:
            return 0

    def _create_segment(self, segment: int) -> int:
        """Create an empty segment, or take one that a failed rotation left."""
        path = self._segment_path(segment)
        descriptor = self._disk.open(path, os.O_WRONLY | os.O_CREAT)
        try:
            self._disk.sync_directory(self._directory)
        except OSError:
            self._disk.close(descriptor)
            with suppress(OSError):
                self._disk.remove(path)
            raise
        return descriptor

    def _write_at(self, descriptor: int, data: bytes, offset: int) -> None:
        written = 0
        while written < len(data):
            written += self._disk.write(descriptor, data[written:], offset + written)
        self._disk.sync(descriptor)

    def _rotate_segment(self) -> None:
        before, self._descriptor = self._descriptor, self._create_segment(self._active + 1)
        with self._state:
            self._active += 1
            self._active_bytes = 0
        self._disk.close(before)  # last: after an error here nothing may write to it any more

    def _read_lines(self, position: Position, size: int, limit: int) -> tuple[list[bytes], int]:
        """Read the whole lines among the next `size` bytes, and their size in bytes."""
        if size <= 0:
            return [], 0
        try:
            descriptor = self._disk.open(self._segment_path(position.segment), os.O_RDONLY)
        except FileNotFoundError:
            return [], 0
        try:
            data = self._read_at(descriptor, min(size, READ_BYTES), position.offset)
            if b"\n" not in data and len(data) < size:
                data += self._read_at(descriptor, size - len(data), position.offset + len(data))
        finally:
            self._disk.close(descriptor)
        lines = data[: data.rfind(b"\n") + 1].split(b"\n")[:-1][:limit]
        return lines, sum(len(line) + 1 for line in lines)

    def _read_at(self, descriptor: int, size: int, offset: int) -> bytes:
        """Read the next `size` bytes, or as many as there are."""
        parts: list[bytes] = []
        while size > 0 and (part := self._disk.read(descriptor, size, offset)):
            parts.append(part)
            size -= len(part)
            offset += len(part)
        return b"".join(parts)

    def _count_lines(self, segment: int) -> int:
        if segment < self._position.segment:
            return 0
        start = self._position.offset if segment == self._position.segment else 0
        descriptor = self._disk.open(self._segment_path(segment), os.O_RDONLY)
        try:
            lines = 0
            while block := self._disk.read(descriptor, _BLOCK_BYTES, start):
                lines += block.count(b"\n")
                start += len(block)
            return lines
        finally:
            self._disk.close(descriptor)

    def _delete_segment(self, segment: int) -> None:
        size_bytes = self._segment_size(segment)
        self._disk.remove(self._segment_path(segment))
        with self._state:
            self._bytes -= size_bytes
