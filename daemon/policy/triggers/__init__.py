"""Triggers, one file each: every module of this folder brings one as `TRIGGER`."""

import importlib
import pkgutil
from typing import Any

from adaptd.daemon.policy.trigger import Trigger


def _load_triggers() -> tuple[Trigger[Any], ...]:
    names = sorted(found.name for found in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return tuple(module.TRIGGER for module in modules)


TRIGGERS = _load_triggers()
