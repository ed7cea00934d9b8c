"""One definition of an alias's version in a state. Pure.

It stands alone because scheduling, evaluation and rollout ask it and may not import each other.
"""

from collections.abc import Iterable
from typing import Protocol, TypeVar

from adaptd.daemon.domain.states import AdapterState


class KnownVersion(Protocol):
    """The part of an adapter version that tells which one is in a state."""

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def number(self) -> int: ...

    @property
    def state(self) -> AdapterState: ...


V = TypeVar("V", bound=KnownVersion)


def find_version(versions: Iterable[V], model: str, state: AdapterState) -> V | None:
    """Return the alias's newest version in a state. None stands for the base model."""
    found = (one for one in versions if one.model == model and one.state == state)
    return max(found, key=lambda one: one.number, default=None)


def live_version(versions: Iterable[V], model: str) -> V | None:
    """Return the version that answers an alias's requests; None where the base does."""
    return find_version(versions, model, AdapterState.LIVE)
