"""The golden file: reviewed prompts with their right answers, one JSON object a line."""

# JSON of any kind.
# pyright: reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from adaptd.daemon.policy.files import Unreadable, inside, read_regular
from adaptd.daemon.wire.texts import NOT_DECODED, unencodable_in

_LIMIT_BYTES = 64 * 1024**2
_SHOWN_PROBLEMS = 20
_EXAMPLE = 'Write {"messages": [{"role": "user", "content": "…"}], "reference": "…"}'


class GoldenItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line. Without an `id` its content names it."""

    messages: list[dict[str, Any]]
    reference: str
    id: str | None = None
    tools: list[dict[str, Any]] | None = None

    @property
    def name(self) -> str:
        if self.id is not None:
            return self.id
        return hashlib.sha256(self.content).hexdigest()[:16]

    @property
    def content(self) -> bytes:
        """Bytes that are equal for equal items."""
        return msgspec.json.encode([self.messages, self.tools], order="sorted")


@dataclass(frozen=True)
class GoldenProblem:
    line: int
    what: str
    remedy: str


@dataclass(frozen=True)
class Golden:
    """A golden file as read: usable where it has no problems."""

    path: Path
    content: bytes
    items: tuple[GoldenItem, ...]
    problems: tuple[GoldenProblem, ...] = ()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def read_golden(folder: Path, name: str) -> Golden:
    """Read a golden file of the policy folder, with its first twenty problems.

    Raises:
        Unreadable: the folder holds no such file.
    """
    path = inside(folder, name)
    content = read_regular(path, limit_bytes=_LIMIT_BYTES)
    return parse_golden(folder / name, content)


def parse_golden(path: Path, content: bytes) -> Golden:
    """Read the items of a golden file's content."""
    items: list[GoldenItem] = []
    problems: list[GoldenProblem] = []
    known: dict[bytes | str, int] = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        item = _read_line(line)
        trouble = item if isinstance(item, tuple) else _find_repeat(item, known, number)
        if trouble is not None:
            problems.append(GoldenProblem(number, *trouble))
        elif isinstance(item, GoldenItem):
            items.append(item)
    if not items and not problems:
        problems.append(GoldenProblem(1, "it has no items", _EXAMPLE))
    return Golden(path, content, tuple(items), tuple(problems[:_SHOWN_PROBLEMS]))


def _read_line(line: bytes) -> GoldenItem | tuple[str, str]:
    try:
        item = msgspec.json.decode(line, type=GoldenItem)
    except msgspec.ValidationError as error:
        return f"the item is wrong ({error})", _EXAMPLE
    except NOT_DECODED:
        return _explain_undecoded(line)
    return _find_trouble(item) or item


def _explain_undecoded(line: bytes) -> tuple[str, str]:
    """Tell a lone surrogate, which Python's own reader takes, from what is no JSON at all."""
    try:
        half = unencodable_in(json.loads(line))
    except (ValueError, RecursionError):
        half = None
    if half is None:
        return "it is not a JSON object", _EXAMPLE
    return "a text holds half a letter (a lone surrogate)", "Write the letter itself"


def _find_trouble(item: GoldenItem) -> tuple[str, str] | None:
    if not item.messages or any(not isinstance(m.get("role"), str) for m in item.messages):
        return "its messages have no roles", _EXAMPLE
    if not all(_is_text(message.get("content")) for message in item.messages):
        return "a message's content is not text", _EXAMPLE
    if item.messages[-1]["role"] == "assistant":
        return "its last message is an answer", "End with what is answered, and put it in reference"
    if not item.reference.strip():
        return "its reference is empty", "Write the answer that is right"
    return None


def _is_text(content: Any) -> bool:
    if isinstance(content, list):
        return all(isinstance(part, dict) and part.get("type") == "text" for part in content)
    return content is None or isinstance(content, str)


def _find_repeat(
    item: GoldenItem, known: dict[bytes | str, int], number: int
) -> tuple[str, str] | None:
    for key, what in ((item.content, "messages"), (item.name, "id")):
        if key in known:
            return (
                f"it has the {what} of line {known[key]}",
                "Every item once: it would count twice",
            )
    known |= {item.name: number, item.content: number}
    return None


__all__ = ["Golden", "GoldenItem", "GoldenProblem", "Unreadable", "parse_golden", "read_golden"]
