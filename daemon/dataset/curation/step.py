"""The seam for curation: a step takes examples and keeps some of them. Pure."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol

import msgspec

from adaptd.daemon.dataset.example import Example
from adaptd.daemon.policy.model import Select


class Curated(msgspec.Struct, frozen=True):
    """Examples that a step keeps, and how many it left out, by reason."""

    kept: list[Example]
    refused: Mapping[str, int] = {}


class CurationStep(Protocol):
    """One step. Equal input gives equal output, in whatever order the rows were read."""

    @property
    def name(self) -> str: ...

    def apply(self, examples: Sequence[Example], policy: Select) -> Curated:
        """Choose among examples, which come the oldest first; the order of `kept` is free."""
        ...


def keep_newest(examples: Sequence[Example], keys: Sequence[Hashable]) -> list[Example]:
    """Return the newest example of each key, the oldest of them first."""
    found: dict[Hashable, Example] = {}
    for example, key in zip(examples, keys, strict=True):
        found.pop(key, None)
        found[key] = example
    return list(found.values())
