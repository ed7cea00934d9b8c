import json
import os
from pathlib import Path

import pytest

from adaptd.serving.capture.spool import READ_BYTES, Batch, Position, Spool


def a_spool(path: Path, *, segment_bytes: int = 1 << 20) -> Spool:
    return Spool(path, segment_bytes=segment_bytes)


def crash(spool: Spool) -> None:
    """Close the spool's descriptors, as the end of its process does."""
    os.close(spool._descriptor)
    os.close(spool._lock)


def drain(spool: Spool, limit: int = 500) -> list[bytes]:
    lines: list[bytes] = []
    while batch := spool.read(limit):
        lines += batch.lines
        spool.acknowledge(batch)
    return lines


def segments(path: Path) -> list[Path]:
    return sorted(path.glob("[0-9]*.ndjson"))


def test_lines_come_back_in_order_until_acknowledged(tmp_path: Path) -> None:
    spool = a_spool(tmp_path)
    spool.append([b"1", b"2"])
    spool.append([b"3"])

    first = spool.read(limit=2)

    assert first is not None
    assert first.lines == [b"1", b"2"]
    assert spool.read(limit=2) == first
    assert spool.depth == 3
    spool.acknowledge(first)
    assert spool.depth == 1
    assert drain(spool) == [b"3"]
    assert spool.read() is None
    assert spool.depth == 0


def test_what_was_not_acknowledged_comes_again_after_a_crash(tmp_path: Path) -> None:
    crashed = a_spool(tmp_path)
    crashed.append([b"1", b"2", b"3"])
    batch = crashed.read(limit=1)
    assert batch is not None
    crashed.acknowledge(batch)
    crash(crashed)

    spool = a_spool(tmp_path)

    assert spool.depth == 2
    spool.append([b"4"])
    assert drain(spool) == [b"2", b"3", b"4"]


@pytest.mark.parametrize("torn", [b"", b'{"id":"3', b"\0" * 5000])
def test_a_torn_last_line_is_passed_over(tmp_path: Path, torn: bytes) -> None:
    crashed = a_spool(tmp_path)
    crashed.append([b"1", b"2"])
    crash(crashed)
    with segments(tmp_path)[0].open("ab") as file:
        file.write(torn)

    spool = a_spool(tmp_path)
    spool.append([b"4"])

    assert drain(spool) == [b"1", b"2", b"4"]
    assert spool.depth == 0


@pytest.mark.parametrize("content", [b"", b"{", b'{"segment": "x"}'])
def test_a_spoilt_position_sends_everything_again(tmp_path: Path, content: bytes) -> None:
    crashed = a_spool(tmp_path)
    crashed.append([b"1", b"2"])
    batch = crashed.read(limit=1)
    assert batch is not None
    crashed.acknowledge(batch)
    crash(crashed)
    (tmp_path / "position.json").write_bytes(content)

    assert drain(a_spool(tmp_path)) == [b"1", b"2"]


def test_segments_rotate_and_go_once_they_are_done_with(tmp_path: Path) -> None:
    spool = a_spool(tmp_path, segment_bytes=10)
    lines = [f"line {index}".encode() for index in range(20)]
    for line in lines:
        spool.append([line])
    assert len(segments(tmp_path)) > 5
    assert spool.size_bytes == sum(len(line) + 1 for line in lines)

    assert drain(spool, limit=3) == lines

    assert len(segments(tmp_path)) <= 2  # the next line removes the last full one
    assert spool.size_bytes < 20


def test_a_line_longer_than_a_read_is_given_whole(tmp_path: Path) -> None:
    spool = a_spool(tmp_path)
    long = b"x" * (READ_BYTES + 10)
    spool.append([long, b"2"])

    assert drain(spool) == [long, b"2"]


def test_a_full_disk_loses_no_line_and_tears_none(tmp_path: Path) -> None:
    spool = a_spool(tmp_path)
    spool.append([b"1"])
    healthy = spool._descriptor
    with Path("/dev/full").open("wb") as full:
        spool._descriptor = full.fileno()
        with pytest.raises(OSError, match="No space"):
            spool.append([b"2"])
        spool._descriptor = healthy
    spool.append([b"2", b"3"])

    assert drain(spool) == [b"1", b"2", b"3"]


def test_refused_lines_are_kept_for_a_person(tmp_path: Path) -> None:
    spool = a_spool(tmp_path)
    spool.set_aside(b"a")
    spool.set_aside(b"b")

    assert (tmp_path / "refused.ndjson").read_bytes() == b"a\nb\n"
    assert spool.read() is None


def test_a_closed_spool_leaves_no_empty_segment_and_lets_go(tmp_path: Path) -> None:
    spool = a_spool(tmp_path)
    spool.append([b"1"])
    assert drain(spool) == [b"1"]
    spool.close()
    again = a_spool(tmp_path)
    again.close()

    assert len(segments(tmp_path)) == 1
    assert json.loads((tmp_path / "position.json").read_bytes())["segment"] == 1
    assert drain(a_spool(tmp_path)) == []


def test_the_files_are_their_owners_only(tmp_path: Path) -> None:
    spool = a_spool(tmp_path / "spool")
    spool.append([b"1"])
    spool.acknowledge(Batch([b"1"], Position(1, 2)))

    assert (tmp_path / "spool").stat().st_mode & 0o077 == 0
    assert segments(tmp_path / "spool")[0].stat().st_mode & 0o077 == 0
