"""Search files for a person: adaptd's own are cleared or listed, the operator's only listed."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from adaptd.daemon.domain.words import Matcher
from adaptd.daemon.wire.texts import encodable

BLOCK_BYTES = 1 << 20
_OVERLAP_BYTES = 4096  # longer than any word that is looked for
_LOG_SUFFIXES = (".log", ".ndjson")  # lines of these may be blotted out
_FILL = b"*"
_MOST_TOLD = 100


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """`places` are file:line. `blotted` counts lines of logs that were overwritten."""

    places: list[str]
    blotted: int = 0


def search_folder(folder: Path, matcher: Matcher) -> list[str]:
    """List where a folder's files name the person, as file:line. Changes nothing."""
    places: list[str] = []
    for path in _walk_files(folder):
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if matcher.finds(line):
                    places.append(encodable(f"{path}:{number}"))
    return places[:_MOST_TOLD]


def clear_home(home: Path, matcher: Matcher, *, skip: frozenset[Path]) -> Found:
    """Search adaptd's own folder. Lines of logs are blotted out in place; other files are listed.

    A log keeps its length, so a process that appends to it is not disturbed. `skip` are files and
    folders that hold nothing in clear, or are cleared by others.
    """
    places: list[str] = []
    blotted = 0
    for path in _walk_files(home, skip):
        if path.suffix in _LOG_SUFFIXES:
            blotted += blot(path, matcher)
        elif any(True for _ in _find_spans(path, matcher)):
            places.append(encodable(str(path)))
    return Found(places=places[:_MOST_TOLD], blotted=blotted)


def lines_with(path: Path, matcher: Matcher) -> list[tuple[int, int]]:
    """Offsets of the lines of a file that name the person."""
    return sorted({_line_around(path, start) for start, _ in _find_spans(path, matcher)})


def blot(path: Path, matcher: Matcher, *, before: int | None = None) -> int:
    """Overwrite every line of a file that names the person. Returns how many.

    `before`: only lines that end at this offset or earlier.
    """
    found = lines_with(path, matcher)
    lines = [(start, end) for start, end in found if before is None or end < before]
    if not lines:
        return 0
    descriptor = os.open(path, os.O_WRONLY)
    try:
        for start, end in lines:
            os.pwrite(descriptor, _FILL * (end - start), start)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return len(lines)


def _find_spans(path: Path, matcher: Matcher) -> Iterator[tuple[int, int]]:
    """Every hit by its offsets in the file, whatever the file's size."""
    offset, tail = 0, b""
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            content = tail + block
            for start, end in matcher.spans(content):
                yield offset - len(tail) + start, offset - len(tail) + end
            offset += len(block)
            tail = content[-_OVERLAP_BYTES:]


def _line_around(path: Path, at: int) -> tuple[int, int]:
    """The line that an offset lies in, without its newline; at most a block each way."""
    with path.open("rb") as file:
        begin = max(0, at - BLOCK_BYTES)
        file.seek(begin)
        before = file.read(at - begin)
        after = file.read(BLOCK_BYTES)
    start = begin + before.rfind(b"\n") + 1
    length = after.find(b"\n")
    return start, at + (length if length >= 0 else len(after))


def _walk_files(folder: Path, skip: frozenset[Path] = frozenset()) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        here = Path(root)
        folders[:] = [name for name in folders if here / name not in skip]
        yield from (
            path
            for name in sorted(names)
            if (path := here / name) not in skip and path.is_file() and not path.is_symlink()
        )
