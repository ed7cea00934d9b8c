"""Take a person out of a gateway's spool on this machine, also while the gateway writes there.

A segment keeps its lines until it is full. The part that was sent is not read again, so its lines
may be overwritten in place. The rest is sent soon, and the store refuses it.

Stands alone, since another process owns these files and their lock.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adaptd.daemon.domain.words import Matcher
from adaptd.daemon.erasure.search import blot, lines_with

_REFUSED = "refused.ndjson"
_EVERYTHING = (1 << 62, 0)


def clear_spool(directory: Path, matcher: Matcher) -> bool:
    """Overwrite the person's lines. False where some are still to be sent."""
    if not directory.is_dir():
        return True
    if (directory / _REFUSED).exists():
        blot(directory / _REFUSED, matcher)
    with _hold_unused(directory) as is_unused:
        sent = _EVERYTHING if is_unused else _read_position(directory)
        done = [_clear_segment(path, matcher, sent) for path in _list_segments(directory)]
        return all(done)


def _clear_segment(path: Path, matcher: Matcher, sent: tuple[int, int]) -> bool:
    try:
        segment, limit = int(path.stem), None
        if segment > sent[0]:
            limit = 0
        elif segment == sent[0]:
            limit = sent[1]
        blot(path, matcher, before=limit)
        return not lines_with(path, matcher)
    except FileNotFoundError:  # all of it was sent meanwhile
        return True


def _read_position(directory: Path) -> tuple[int, int]:
    """Up to where everything was sent: a segment and an offset in it."""
    try:
        found = json.loads((directory / "position.json").read_bytes())
    except FileNotFoundError:
        return 0, 0
    return found["segment"], found["offset"]


def _list_segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("[0-9]*.ndjson"))


@contextmanager
def _hold_unused(directory: Path) -> Iterator[bool]:
    """Hold the spool's lock.

    Yields True where no gateway writes there; none can begin meanwhile.
    """
    lock = os.open(directory / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(lock)
