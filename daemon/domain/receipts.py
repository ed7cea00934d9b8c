"""The swap receipt (D3): proof that a serving host really applies an adapter version."""

from datetime import datetime
from typing import Any

import msgspec


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """One version measured once on one process of a host. Valid as long as that `instance`.

    All figures are over context tokens. `slope`: the host's log-prob change (adapter - base) on the
    trainer's, 1 where the adapter is applied exactly. `residual_ratio`: rmse of host - trainer with
    the adapter over the same without. `effect_ratio`: rms of the host's change over the noise of
    scoring the base twice. A figure is None where an earlier check already refused. `reason` says
    why the version did not pass, and is None where it did.
    """

    adapter: str
    instance: str
    passed: bool
    reason: str | None = None
    slope: float | None = None
    residual_ratio: float | None = None
    effect_ratio: float | None = None
    report: dict[str, Any] = {}
    created_at: datetime
