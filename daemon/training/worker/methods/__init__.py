"""Training methods, one file each: the rows that a method reads and the trainer that learns them.

A file of this folder has the name of its method and registers it when it is imported. Code outside
the package registers a method in the same way, before the training begins.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peft import PeftModel

from adaptd.daemon.training.job import Job
from adaptd.daemon.training.worker.data import RowLayout
from adaptd.daemon.training.worker.trainer import BatchPlan, PlannedTrainer
from adaptd.daemon.wire.errors import AdaptdError


@dataclass(frozen=True, kw_only=True)
class TrainingMethod:
    """One way to learn from a snapshot. A job asks for it by `name`.

    `rows` is the layout of train.parquet. `make_trainer` builds the trainer with its configuration;
    its rows are those that `rows` has parsed, and it learns them in the order of the plan.
    """

    name: str
    rows: RowLayout
    make_trainer: Callable[[Job, PeftModel, BatchPlan, list[Any]], PlannedTrainer]


_registered: dict[str, TrainingMethod] = {}


def register_method(method: TrainingMethod) -> TrainingMethod:
    """Make a method known by its name.

    Raises:
        ValueError: another one has this name.
    """
    if _registered.setdefault(method.name, method) is not method:
        raise ValueError(f"two training methods are named {method.name}")
    return method


def find_method(name: str) -> TrainingMethod:
    """The method that a job names.

    Raises:
        AdaptdError: there is none of this name.
    """
    files = {module.name for module in pkgutil.iter_modules(__path__)}
    # Only the file asked for: each method brings a trainer of its own from trl.
    if name in files - _registered.keys():
        importlib.import_module(f"{__name__}.{name}")
    if name not in _registered:
        known = ", ".join(sorted(files | _registered.keys()))
        problem = f"no training method is named {name!r}"
        raise AdaptdError("job", problem, f"Use one of those that this trainer has: {known}")
    return _registered[name]
