"""What may lie under a name where a plain file is meant, and how many files are open."""

import os
import stat
from collections.abc import Callable
from pathlib import Path


def _make_pipe(path: Path) -> None:
    os.mkfifo(path)


def _make_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def _make_circle(path: Path) -> None:
    path.symlink_to(path.name)


def _make_broken_link(path: Path) -> None:
    path.symlink_to("nothing-of-this-name")


def _make_folder_link(path: Path) -> None:
    inside = path.with_name(f"{path.name}.d")
    inside.mkdir(exist_ok=True)
    path.symlink_to(inside.name)


def _make_device_link(path: Path) -> None:
    path.symlink_to("/dev/zero")  # who reads it to its end never comes back


ODD_FILES: dict[str, Callable[[Path], None]] = {
    "folder": Path.mkdir,
    "pipe": _make_pipe,
    "socket": _make_socket,
    "circle of links": _make_circle,
    "broken link": _make_broken_link,
    "link to a folder": _make_folder_link,
    "link to a device": _make_device_link,
}


def open_descriptors() -> int:
    """How many files this process has open, the one that lists them left out."""
    return len(list(Path("/proc/self/fd").iterdir())) - 1
