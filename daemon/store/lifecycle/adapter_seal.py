"""The seal of an adapter: the hashes of its files as the trainer wrote them.

Scores alone do not show a damaged file: one of 30 layers missing from SmolLM2's file measured 2.6
to 4.1 times the base's residual, and 3 is the bound.
"""

import hashlib
from pathlib import Path

import msgspec

from adaptd.daemon.store.lifecycle.adapters import AdapterRow
from adaptd.daemon.wire.files import open_regular, read_regular
from adaptd.daemon.wire.texts import NOT_DECODED

MANIFEST = "manifest.json"


class AdapterSeal(msgspec.Struct, frozen=True):
    """A manifest as far as receipts read it: SHA-256 by file name, and the version's own hash."""

    content_hash: str
    files: dict[str, str]


def broken_seal(row: AdapterRow) -> str | None:
    """Say what is wrong with the files of a version; None: nothing. Blocks, reading them all."""
    directory = Path(row.path)
    try:
        seal = msgspec.json.decode(read_regular(directory / MANIFEST), type=AdapterSeal)
        wrong = [
            name for name, digest in seal.files.items() if _hash_file(directory / name) != digest
        ]
    except (OSError, *NOT_DECODED) as error:
        return f"its files cannot be read ({error})"
    if wrong:
        return f"{', '.join(sorted(wrong))} is not what the trainer wrote"
    if seal.content_hash != row.content_hash:
        return "its files are those of another version"
    return None


def _hash_file(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
