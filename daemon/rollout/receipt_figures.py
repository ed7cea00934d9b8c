"""Judge swap receipts (D3): does the host change log-probs as the trainer says? Pure.

Only context tokens count. Answer tokens are near 0 with any version that learned them, right or
wrongly scaled, and hide the difference.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MIN_SLOPE, MAX_SLOPE = 0.9, 1.1
MAX_RESIDUAL_RATIO = 3.0
MIN_EFFECT_RATIO = 3.0
# A host may score the base twice alike to the last bit, and agree with the trainer as well; an
# adapter still adds rounding of its own. So neither divisor is taken below this.
NOISE_FLOOR_NATS = 0.01
# The right base measures 0.08, bf16 against bf16 (SmolLM2, 48 probes); another is off by more.
MAX_BASE_RESIDUAL_NATS = 0.3
MIN_TOKENS = 16  # fewer cannot tell a slope


class Probe(msgspec.Struct, frozen=True):
    """One fixed sequence and the trainer's natural-log probability of each token, the first 0.0."""

    ids: list[int]
    context_tokens: int
    base: list[float]
    adapter: list[float]


class ProbeFile(msgspec.Struct, frozen=True):
    """probes.json, beside the adapter's weights."""

    probes: list[Probe]


class MeasuredProbes(msgspec.Struct, frozen=True):
    """The host's log-probs of every probe: the base, the base once more, the adapter."""

    base: list[list[float]]
    base_again: list[list[float]]
    adapter: list[list[float]]


class ReceiptFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Measured differences in nats per token (root mean square), and the conclusion."""

    reason: str | None
    slope: float | None = None
    residual_ratio: float | None = None
    effect_ratio: float | None = None
    tokens: int = 0
    base_residual: float | None = None
    adapter_residual: float | None = None
    effect: float | None = None
    trained_effect: float | None = None
    noise: float | None = None
    worst: float | None = None  # the token the adapter's residual is largest at
    far_share: float | None = None  # of tokens, more than a nat off

    @property
    def passed(self) -> bool:
        return self.reason is None


def judge_receipt(probes: Sequence[Probe], measured: MeasuredProbes) -> ReceiptFigures:
    """Compare the host with the trainer.

    Refuses, in this order: too little to judge; another base; no effect; a wrong slope (scaling);
    a residual that bf16 does not explain (a part is missing).
    """
    trainer_base = _context_values(probes, [probe.base for probe in probes])
    trainer_adapter = _context_values(probes, [probe.adapter for probe in probes])
    base = _context_values(probes, measured.base)
    noise = _rms(base - _context_values(probes, measured.base_again))
    adapter = _context_values(probes, measured.adapter)
    wanted, change, off = trainer_adapter - trainer_base, adapter - base, adapter - trainer_adapter
    base_residual, adapter_residual = _rms(base - trainer_base), _rms(off)
    slope = _fit_slope(wanted, change, rounding=base_residual)
    ratio = adapter_residual / max(base_residual, NOISE_FLOOR_NATS)
    effect_ratio = _rms(change) / max(noise, NOISE_FLOOR_NATS)
    return ReceiptFigures(
        reason=_find_refusal(
            tokens=len(base),
            base_residual=base_residual,
            effect_ratio=effect_ratio,
            slope=slope,
            ratio=ratio,
        ),
        slope=slope,
        residual_ratio=ratio,
        effect_ratio=effect_ratio,
        tokens=len(base),
        base_residual=base_residual,
        adapter_residual=adapter_residual,
        effect=_rms(change),
        trained_effect=_rms(wanted),
        noise=noise,
        worst=float(np.abs(off).max(initial=0.0)),
        far_share=float(np.mean(np.abs(off) > 1)) if len(off) else 0.0,
    )


def _fit_slope(wanted: Array, change: Array, *, rounding: float) -> float:
    """The host's change on the trainer's, by least squares, corrected for the trainer's rounding.

    Rounding in `wanted` alone flattens the line: a right adapter of 0.12 nats measured 0.96 on a
    host that is 0.022 off, and 0.995 corrected. Each side rounds its two scores by themselves, so
    the rounding in `wanted` is as large as that between host and trainer.
    """
    square = float(np.mean(wanted**2)) if len(wanted) else 0.0
    signal = max(square - rounding**2, square / 2, 1e-12)
    return float(np.mean(wanted * change)) / signal if len(wanted) else 0.0


def _find_refusal(
    *, tokens: int, base_residual: float, effect_ratio: float, slope: float, ratio: float
) -> str | None:
    if tokens < MIN_TOKENS:
        return f"only {tokens} context tokens to compare, {MIN_TOKENS} needed"
    if not base_residual <= MAX_BASE_RESIDUAL_NATS:
        return (
            f"another base: without the adapter the host is {base_residual:.2f} nats off the"
            f" trainer, at most {MAX_BASE_RESIDUAL_NATS} is rounding"
        )
    if not effect_ratio >= MIN_EFFECT_RATIO:
        return f"no effect: {effect_ratio:.1f} x the noise, {MIN_EFFECT_RATIO:.0f} x needed"
    if not MIN_SLOPE <= slope <= MAX_SLOPE:
        return f"wrong strength: {slope:.2f} x the trained change, not {MIN_SLOPE} to {MAX_SLOPE}"
    if not ratio <= MAX_RESIDUAL_RATIO:
        return (
            f"a part is missing or different: {ratio:.1f} x the base's residual,"
            f" at most {MAX_RESIDUAL_RATIO:.0f} x is rounding"
        )
    return None


def _context_values(probes: Sequence[Probe], logprobs: Sequence[Sequence[float]]) -> Array:
    """The context tokens' values after the first (which has none before it), in probe order.

    Raises:
        ValueError: a sequence is missing or has another length than its probe.
    """
    parts = [
        np.asarray(values[1 : probe.context_tokens], dtype=np.float64)
        for probe, values in zip(probes, logprobs, strict=True)
        if _same_length(probe, values)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _same_length(probe: Probe, values: Sequence[float]) -> bool:
    if len(values) != len(probe.ids):
        raise ValueError(f"{len(values)} log-probs for {len(probe.ids)} tokens")
    return True


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else 0.0
