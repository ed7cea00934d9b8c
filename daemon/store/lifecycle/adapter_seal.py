"""Whether an adapter's files are still what the trainer sealed.

The scores alone do not tell: one of 30 layers missing from SmolLM2's file measured 2.6 to 4.1 times
the base's residual, and 3 is the bound.
"""

import hashlib
from pathlib import Path

import msgspec

from adaptd.daemon.store.lifecycle.adapters import AdapterRow
from adaptd.daemon.wire.files import open_regular, read_regular
from adaptd.daemon.wire.texts import NOT_DECODED

MANIFEST = "manifest.json"


class AdapterSeal(msgspec.Struct, frozen=True):
    """What the receipt reads of a manifest: SHA-256 by file name, and the version's own hash."""

    content_hash: str
    files: dict[str, str]


def broken_seal(row: AdapterRow) -> str | None:
    """What is wrong with the files of a version; None where nothing is. Reads them all: blocks."""
    directory = Path(row.path)
    try:
        seal = msgspec.json.decode(read_regular(directory / MANIFEST), type=AdapterSeal)
        wrong = [name for name, digest in seal.files.items() if _sha256(directory / name) != digest]
    except (OSError, *NOT_DECODED) as error:
        return f"its files cannot be read ({error})"
    if wrong:
        return f"{', '.join(sorted(wrong))} is not what the trainer wrote"
    if seal.content_hash != row.content_hash:
        return "its files are those of another version"
    return None


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
