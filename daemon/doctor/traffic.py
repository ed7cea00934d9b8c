"""Time that a canary step needs at the traffic seen; check that feedback comes in time. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import log
from typing import Any

from adaptd.daemon.doctor.findings import Finding, error, note, ok, warning

# An arm's feedback must come within the maturity: at less than 4 mean delays the slower arm's late
# negatives bias the guard (measured: 31 % false rollbacks at 2.7, 5 % at 4).
MEAN_DELAYS = 4
_MIN_DELAYS_SEEN = 20
# The e-process needs a little over log(1/alpha) / information: measured medians are 56, 107 and 23
# events where the quotient says 53, 98 and 23.
_GRID_COST = 1.08


@dataclass(frozen=True)
class Seen:
    """Traffic of an alias: units an hour, and the share of them that ends in a negative."""

    units_per_hour: float
    negative_share: float


def events_to_notice(
    weight: float, *, ratio: float = 2.0, null_ratio: float = 1.0, alpha: float, metrics: int = 1
) -> float:
    """Negative units of both arms until a canary at `ratio` times the rate is told from the null.

    A median, from the information in one event: which arm it came from, given the weight. Over
    several metrics the e-values are averaged, so one of them has to be `metrics` times as large.
    """
    if not 0 < weight < 1:
        return float("inf")
    truth = weight * ratio / (weight * ratio + 1 - weight)
    null = weight * null_ratio / (weight * null_ratio + 1 - weight)
    gained = truth * log(truth / null) + (1 - truth) * log((1 - truth) / (1 - null))
    return _GRID_COST * log(metrics / alpha) / gained if gained > 0 else float("inf")


def hours_to_notice(
    seen: Seen, weight: float, *, ratio: float = 2.0, alpha: float, metrics: int = 1
) -> float:
    """Hours at the traffic seen until a canary at `ratio` times live's negatives is rolled back."""
    needed = events_to_notice(weight, ratio=ratio, alpha=alpha, metrics=metrics)
    share = seen.negative_share * (weight * ratio + 1 - weight)
    per_hour = seen.units_per_hour * share
    return needed / per_hour if per_hour > 0 else float("inf")


def judge_maturity(
    model: str, maturity: timedelta, delays: dict[str, tuple[int, float]]
) -> Finding:
    """Compare a policy's maturity with the delays seen: per arm, how many and their mean (s)."""
    known = {arm: mean for arm, (count, mean) in delays.items() if count >= _MIN_DELAYS_SEEN}
    check = f"maturity of {model}"
    if not known:
        return note(check, f"fewer than {_MIN_DELAYS_SEEN} delays seen: cannot be judged yet")
    arm, mean_s = max(known.items(), key=lambda item: item[1])
    needed = timedelta(seconds=MEAN_DELAYS * mean_s)
    words = f"feedback takes {duration(mean_s)} on average on the {arm} arm"
    if maturity < needed:
        what = f"{words}, and is counted at {duration(maturity.total_seconds())}: too soon"
        remedy = f"Set rollout.guard.maturity to at least {duration(needed.total_seconds())}"
        judge = error if maturity.total_seconds() < mean_s else warning
        return judge(check, what, remedy)
    return ok(check, f"{words}; maturity is {duration(maturity.total_seconds())}")


def duration(seconds: float) -> str:
    """`90 s`, `12 min`, `5 h`, `3 days`: rounded up, two digits are enough."""
    if seconds == float("inf"):
        return "never"
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{-(-seconds // size):.0f} {unit}"
    return f"{-(-seconds // 86400):.0f} days"


def seen_from(traffic: Mapping[str, Any]) -> Seen | None:
    """Rates from the daemon's `/v1/traffic`; None without traffic or where no time passed."""
    if not traffic["units"] or traffic["first_at"] is None:
        return None
    first, last = (datetime.fromisoformat(traffic[key]) for key in ("first_at", "now"))
    hours = (last - first).total_seconds() / 3600
    if hours <= 0:
        return None
    return Seen(traffic["units"] / hours, traffic["negative_units"] / traffic["units"])
