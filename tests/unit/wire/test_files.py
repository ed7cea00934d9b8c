"""Files that people name: whatever lies there, reading ends at once and leaves nothing open."""

from pathlib import Path

import pytest

from adaptd.daemon.wire.files import open_regular, read_regular, shown_path
from tests.support.odd_files import ODD_FILES, open_descriptors


def test_a_plain_file_is_read_through_links_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file") == read_regular(tmp_path / "link") == b"content"
    with pytest.raises(OSError, match="symbolic links"):
        open_regular(tmp_path / "link", follow_links=False)


@pytest.mark.parametrize("follow_links", [True, False])
@pytest.mark.parametrize("kind", ODD_FILES)
def test_what_is_no_plain_file_is_an_os_error_and_leaves_nothing_open(
    kind: str, follow_links: bool, tmp_path: Path
) -> None:
    path = tmp_path / "odd"
    ODD_FILES[kind](path)
    before = open_descriptors()
    for _ in range(50):
        with pytest.raises(OSError, match="odd"):
            open_regular(path, follow_links=follow_links)
    assert open_descriptors() == before


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300])
def test_a_name_that_no_file_can_have_is_an_os_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"name"):
        open_regular(tmp_path / name)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("policies/é b.yaml", "policies/é b.yaml"),
        ("a\nb", "a\\nb"),
        ("\udcff.yaml", "\\udcff.yaml"),
    ],
)
def test_a_path_is_shown_in_one_printable_line(path: str, shown: str) -> None:
    assert shown_path(path) == shown
