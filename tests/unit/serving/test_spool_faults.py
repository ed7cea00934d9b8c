"""Every file call of the spool fails once: no line is lost, torn or out of order."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from adaptd.serving.capture.disk import Disk
from adaptd.serving.capture.spool import Spool, SpoolBusyError
from tests.support.failing_disk import ERRORS, fail_at

T = TypeVar("T")
LINES = [f"line {number}".encode() for number in range(6)]
MOST_CALLS = 200


def insist(work: Callable[[], T]) -> T:
    """Return the result of the first try that no error ends."""
    for _ in range(3):
        try:
            return work()
        except (OSError, SpoolBusyError):
            continue
    return work()


def use(folder: Path, disk: Disk) -> list[bytes]:
    """Write, read, acknowledge, set aside, rotate and delete; twice, as by two processes."""
    seen: list[bytes] = []
    for half in (LINES[:3], LINES[3:]):
        spool = insist(lambda: Spool(folder, segment_bytes=10, disk=disk))
        for line in half:
            insist(partial(spool.append, [line]))
        while batch := insist(partial(spool.read, limit=2)):
            seen += batch.lines
            insist(partial(spool.acknowledge, batch))
        insist(partial(spool.set_aside, b"refused"))
        assert spool.depth == 0
        assert spool.size_bytes == sum(path.stat().st_size for path in folder.glob("0*.ndjson"))
        try:
            spool.close()
        except OSError:
            continue
    return seen


def test_the_calls_of_a_run_are_known(tmp_path: Path) -> None:
    disk = fail_at(-1, 0)
    assert use(tmp_path, disk) == LINES
    assert 50 < disk.total < MOST_CALLS


@pytest.mark.parametrize("error", ERRORS)
def test_no_error_of_any_call_loses_a_line(tmp_path: Path, error: int) -> None:
    for place in range(MOST_CALLS):
        folder, disk = tmp_path / str(place), fail_at(place, error)

        seen = use(folder, disk)

        assert list(dict.fromkeys(seen)) == LINES  # each at least once, in order
        refused = (folder / "refused.ndjson").read_bytes().splitlines()
        assert len(refused) >= 2
        assert set(refused) == {b"refused"}
        if disk.total <= place:  # it never came to that
            return
    pytest.fail("there are more calls than were tried")


@pytest.mark.parametrize("error", ERRORS)
def test_a_spool_that_could_not_be_opened_keeps_no_file_open(tmp_path: Path, error: int) -> None:
    before = open_files()
    for place in range(MOST_CALLS):
        disk = fail_at(place, error)
        with suppress(OSError, SpoolBusyError):
            Spool(tmp_path, segment_bytes=10, disk=disk).close()
        assert open_files() == before
        if disk.total <= place:
            return


def open_files() -> set[str]:
    """Files of spools that this process has open."""
    found = {str(link.resolve()) for link in Path("/proc/self/fd").iterdir() if link.exists()}
    return {path for path in found if path.endswith((".ndjson", "lock"))}
