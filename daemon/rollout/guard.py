"""The guard: judges a canary from counted facts; a rollback starts here (D9, D10, D12). Pure."""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from adaptd.daemon.domain.rollouts import ArmTally, GuardFacts, GuardMetric, LatencyLimit
from adaptd.daemon.rollout.plan import FUSE_ERRORS, SAMPLE_RATIO_ALPHA, GuardRules
from adaptd.daemon.stats.e_process import TWO_SIDED_GRID, better_grid, e_value, worse_grid


class GuardRuling(StrEnum):
    CLEAR = (
        "clear"  # nothing speaks against the canary; `promotable` says whether enough speaks for it
    )
    VETO = "veto"  # half the evidence of a rollback: do not advance
    PAUSE = "pause"  # arms do not get their share of units, so nothing that is read from them holds
    ROLL_BACK = "roll back"


class ArmCounts(msgspec.Struct, frozen=True):
    """Counted events of one metric, and their rate per exposed unit (None without units)."""

    live: int
    canary: int
    live_rate: float | None
    canary_rate: float | None


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The guard's ruling with its evidence. An e-value is compared with 1/alpha.

    `rollback_e` is the mean of `worse`, one e-value per watched metric against "no worse than live"
    (latency: against "at most ratio times as slow"). `promotion_e` is the mean of `better`, one
    per metric of `promote_on` against "at least ratio times as bad".
    """

    verdict: GuardRuling
    reason: str | None = None
    fuse: bool = False
    rollback_e: float = 1.0
    worse: dict[str, float] = {}
    promotion_e: float = 1.0
    better: dict[str, float] = {}
    sample_ratio_e: float = 1.0
    promotable: bool = False
    counts: dict[str, ArmCounts] = {}
    units_live: int = 0
    units_canary: int = 0
    units_this_step: int = 0
    ttft_ms_live: float | None = None
    ttft_ms_canary: float | None = None


def judge(facts: GuardFacts, rules: GuardRules, latency_limits: Sequence[LatencyLimit]) -> Health:
    """Say how the canary is doing.

    Latency is left out where live never had limits: a metric that cannot speak would only dilute
    the others. That is known before the first unit, so it costs no validity.
    """
    watch = [m for m in rules.watch if m != GuardMetric.LATENCY or latency_limits]
    worse = {m.value: _e_of_worse(facts.tallies, m, rules) for m in watch}
    better = {m.value: _e_of_better(facts.tallies, m, rules) for m in rules.promote_on}
    rollback_e, promotion_e = _mean_e(worse), _mean_e(better)
    sample_ratio_e = _weigh_tallies(
        _of_metric(facts.tallies, GuardMetric.ASSIGNMENT), null_ratio=1.0, grid=TWO_SIDED_GRID
    )
    fuse = _fuse_blown(facts)
    verdict, reason = _rule_on(rules, fuse, rollback_e, sample_ratio_e, worse)
    return Health(
        verdict=verdict,
        reason=reason,
        fuse=fuse,
        rollback_e=rollback_e,
        worse=worse,
        promotion_e=promotion_e,
        better=better,
        sample_ratio_e=sample_ratio_e,
        promotable=promotion_e >= 1 / rules.alpha,
        counts={m.value: _count_arms(facts, m) for m in watch},
        units_live=facts.units_live,
        units_canary=facts.units_canary,
        units_this_step=facts.units_this_step,
        ttft_ms_live=facts.ttft_ms_live,
        ttft_ms_canary=facts.ttft_ms_canary,
    )


def _rule_on(
    rules: GuardRules, fuse: bool, rollback_e: float, sample_ratio_e: float, worse: dict[str, float]
) -> tuple[GuardRuling, str | None]:
    if fuse:
        return GuardRuling.ROLL_BACK, f"fuse: {FUSE_ERRORS} hard errors in a row, live has none"
    bar = 1 / rules.alpha
    leading = max(worse, key=lambda metric: worse[metric], default="")
    if rollback_e >= bar:
        return (
            GuardRuling.ROLL_BACK,
            f"worse than live on {leading}: e {rollback_e:.1f} of {bar:.0f}",
        )
    if sample_ratio_e >= 1 / SAMPLE_RATIO_ALPHA:
        return GuardRuling.PAUSE, f"arms do not get their shares of units: e {sample_ratio_e:.0f}"
    half = bar**0.5  # halfway on the log scale of evidence
    if worse and worse[leading] >= half:
        return (
            GuardRuling.VETO,
            f"{leading} speaks against it: e {worse[leading]:.1f} of {half:.1f}",
        )
    return GuardRuling.CLEAR, None


def _e_of_worse(tallies: Sequence[ArmTally], metric: GuardMetric, rules: GuardRules) -> float:
    null_ratio = rules.ratio if metric == GuardMetric.LATENCY else 1.0
    return _weigh_tallies(
        _of_metric(tallies, metric), null_ratio=null_ratio, grid=worse_grid(null_ratio)
    )


def _e_of_better(tallies: Sequence[ArmTally], metric: GuardMetric, rules: GuardRules) -> float:
    return _weigh_tallies(
        _of_metric(tallies, metric), null_ratio=rules.ratio, grid=better_grid(rules.ratio)
    )


def _mean_e(e_values: dict[str, float]) -> float:
    """Average e-values. The average is an e-value whatever the dependence of the metrics (D9)."""
    return sum(e_values.values()) / len(e_values) if e_values else 1.0


def _fuse_blown(facts: GuardFacts) -> bool:
    """Blow only where live answered meanwhile: where both fail, the server is down, not the
    canary.
    """
    broken = facts.canary_errors_in_a_row >= FUSE_ERRORS
    return broken and facts.live_ok_since > 0 and facts.live_errors_since == 0


def _weigh_tallies(
    tallies: Sequence[ArmTally], *, null_ratio: float, grid: Sequence[float]
) -> float:
    return e_value(
        [tally.weight for tally in tallies],
        [tally.on_canary for tally in tallies],
        [tally.events for tally in tallies],
        null_ratio=null_ratio,
        grid=grid,
    )


def _of_metric(tallies: Sequence[ArmTally], metric: GuardMetric) -> list[ArmTally]:
    return [tally for tally in tallies if tally.metric == metric]


def _count_arms(facts: GuardFacts, metric: GuardMetric) -> ArmCounts:
    found = _of_metric(facts.tallies, metric)
    canary = sum(tally.events for tally in found if tally.on_canary)
    live = sum(tally.events for tally in found) - canary
    return ArmCounts(
        live,
        canary,
        _rate_per_unit(live, facts.units_live),
        _rate_per_unit(canary, facts.units_canary),
    )


def _rate_per_unit(events: int, units: int) -> float | None:
    return events / units if units else None
