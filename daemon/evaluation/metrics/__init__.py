"""Metrics, one file each: the value of a score, its words, and the test that judges it.

A file of this folder has the name of its metric and registers it when it is imported. Code outside
the package registers a metric in the same way. Policies name a metric; reports store its name.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from adaptd.daemon.domain.scores import Score
from adaptd.daemon.evaluation.gain_tests import GainTest


class Direction(IntEnum):
    """The sign that makes a gain of a difference, candidate less live."""

    HIGHER_IS_BETTER = 1
    LOWER_IS_BETTER = -1


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure by which two versions are compared.

    Reports show gains and margins times `scale`, gains with so many `digits`, in `unit`.
    `usual_gain` is the improvement worth seeing, where nothing is known yet.
    """

    name: str
    value: Callable[[Score], float]
    direction: Direction
    test: GainTest
    unit: str
    scale: float
    digits: int
    usual_gain: float

    def __str__(self) -> str:
        return self.name

    def gain_words(self, gain: float) -> str:
        """A gain with its sign, in the metric's unit."""
        return f"{self.scale * gain:+.{self.digits}f}"

    def margin_words(self, margin: float) -> str:
        """The drop that is still allowed, in the metric's unit."""
        return f"{self.scale * margin:g}"


_registered: dict[str, Metric] = {}


def register_metric(metric: Metric) -> Metric:
    """Make a metric known by its name.

    Raises:
        ValueError: another one has this name.
    """
    if _registered.setdefault(metric.name, metric) is not metric:
        raise ValueError(f"two metrics are named {metric.name}")
    return metric


def list_metrics() -> list[Metric]:
    """All metrics, in the order of their names."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return [_registered[name] for name in sorted(_registered)]


def find_metric(name: str) -> Metric:
    """The metric of this name.

    Raises:
        ValueError: there is none; policies are checked before, so this is a fault of the code.
    """
    known = {metric.name: metric for metric in list_metrics()}
    if name not in known:
        raise ValueError(f"no metric is named {name!r}, known are {', '.join(known)}")
    return known[name]
