"""What an earlier release left: packed folders and recorded answers, and how they are compared.

`python -m tests.net.make` writes them, once, by hand. They are not made again when the code
changes: a difference is a finding, or a line in CHANGELOG.md that `allowed.json` names.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
import zstandard

NET = Path(__file__).parent
ARTIFACTS = NET / "artifacts"
ALLOWED = NET / "allowed.json"
CHANGELOG = NET.parents[1] / "CHANGELOG.md"
_LEVEL = 19
_MISSING = "<missing>"
_SPACE = re.compile(r"\s+")
_encoder = msgspec.json.Encoder(enc_hook=str, order="deterministic")


class Allowed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One difference that is meant: `where` (a pattern, `*` is anything) and a line of the log.

    `changelog` is a part of CHANGELOG.md, line breaks apart.
    """

    where: str
    changelog: str


def pack(folder: Path, name: str) -> Path:
    """Write a folder as ARTIFACTS/NAME.tar.zst: sorted, without owners or the times of files."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, path.relative_to(folder).as_posix(), recursive=False, filter=_bare)
    target = ARTIFACTS / f"{name}.tar.zst"
    packer = zstandard.ZstdCompressor(level=_LEVEL)
    target.write_bytes(packer.compress(plain.getvalue()))
    return target


def _bare(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member


def unpack(name: str, folder: Path) -> Path:
    """A copy of a packed folder that a test may change. Returns `folder`."""
    packed = (ARTIFACTS / f"{name}.tar.zst").read_bytes()
    plain = io.BytesIO(zstandard.ZstdDecompressor().decompress(packed))
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=plain) as archive:
        archive.extractall(folder, filter="data")
    return folder


def recorded(name: str) -> Any:
    """What ARTIFACTS/NAME.json says."""
    return json.loads((ARTIFACTS / f"{name}.json").read_text("utf-8"))


def record(name: str, value: Any) -> Path:
    """Write ARTIFACTS/NAME.json."""
    target = ARTIFACTS / f"{name}.json"
    text = json.dumps(as_json(value), indent=1, sort_keys=True, ensure_ascii=False)
    target.write_text(text + "\n", "utf-8")
    return target


def as_json(value: Any) -> Any:
    """Structs, times, paths and sets as JSON has them; sets are sorted."""
    return json.loads(_encoder.encode(value))


def differences(name: str, actual: Any) -> dict[str, tuple[Any, Any]]:
    """By place: what ARTIFACTS/NAME.json says and what is now, less what is allowed."""
    before, now = dict(_leaves(name, recorded(name))), dict(_leaves(name, as_json(actual)))
    changed = {
        place: (before.get(place, _MISSING), now.get(place, _MISSING))
        for place in sorted(before.keys() | now.keys())
        if before.get(place, _MISSING) != now.get(place, _MISSING)
    }
    patterns = [allowed.where for allowed in all_allowed()]
    return {
        place: pair
        for place, pair in changed.items()
        if not any(fnmatchcase(place, pattern) for pattern in patterns)
    }


def _leaves(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every value that holds no other, by its path; an empty list or object is one."""
    if isinstance(value, Mapping) and value:
        for key, found in value.items():
            yield from _leaves(f"{place}/{key}", found)
    elif isinstance(value, list) and value:
        for number, found in enumerate(value):
            yield from _leaves(f"{place}/{number}", found)
    else:
        yield place, value


def all_allowed() -> list[Allowed]:
    """The differences that are meant."""
    return msgspec.json.decode(ALLOWED.read_bytes(), type=list[Allowed])


def is_in_changelog(allowed: Allowed) -> bool:
    text = _SPACE.sub(" ", CHANGELOG.read_text("utf-8"))
    wanted = _SPACE.sub(" ", allowed.changelog).strip()
    return bool(wanted) and wanted in text
