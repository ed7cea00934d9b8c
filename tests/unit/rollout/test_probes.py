"""The receipt judged on numbers shaped like the measured ones (bf16: 0.08 nats of rounding)."""

import msgspec
import numpy as np
import pytest

from adaptd.daemon.rollout.receipt_figures import MeasuredProbes, Probe, judge_receipt

TOKENS, CONTEXT, COUNT = 48, 36, 48
ROUNDING = 0.08


class Case:
    """A trainer's probes, and a host that scores them with a given rounding."""

    def __init__(self, *, effect: float = 1.0, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        shape = (COUNT, TOKENS)
        self.base = -self.random.gamma(1.0, 2.5, shape)
        self.change = self.random.normal(0, effect, shape)
        for values in (self.base, self.change):
            values[:, 0] = 0

    def probes(self) -> list[Probe]:
        ids, adapter = list(range(TOKENS)), self.base + self.change
        return [Probe(ids, CONTEXT, list(self.base[k]), list(adapter[k])) for k in range(COUNT)]

    def measured(
        self, *, strength: float = 1.0, also: float = 0.0, off: float = 0.0
    ) -> MeasuredProbes:
        """`strength` scales the change, `also` adds another, `off` makes the base another one."""
        base = self.base + self.noise(ROUNDING) + self.noise(off)
        adapter = base + strength * self.change + self.noise(0.1) + self.noise(also)
        return MeasuredProbes(base.tolist(), base.tolist(), adapter.tolist())

    def noise(self, size: float) -> np.ndarray:
        return self.random.normal(0, size, self.base.shape) if size else np.zeros_like(self.base)


def test_the_right_adapter_passes() -> None:
    case = Case()
    figures = judge_receipt(case.probes(), case.measured())
    assert figures.passed
    assert figures.slope == pytest.approx(1, abs=0.02)
    assert figures.residual_ratio is not None
    assert 1 < figures.residual_ratio < 3
    assert figures.tokens == COUNT * (CONTEXT - 1)


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        ({"strength": 0.8}, "wrong strength: 0.8"),
        ({"strength": 1.25}, "wrong strength: 1.2"),
        ({"strength": 0.0}, "wrong strength: 0.0"),
        ({"also": 0.5}, "a part is missing or different"),
        ({"off": 1.0}, "another base"),
    ],
)
def test_a_wrong_one_is_refused_with_what_is_wrong(measured: dict, reason: str) -> None:
    case = Case()
    figures = judge_receipt(case.probes(), case.measured(**measured))
    assert not figures.passed
    assert figures.reason is not None
    assert figures.reason.startswith(reason)


def test_an_adapter_that_matches_no_module_has_no_effect() -> None:
    case = Case()
    measured = case.measured()
    unchanged = msgspec.structs.replace(measured, adapter=measured.base)
    figures = judge_receipt(case.probes(), unchanged)
    assert figures.reason == "no effect: 0.0 x the noise, 3 x needed"
    assert figures.effect_ratio == 0


def test_a_change_within_the_hosts_own_noise_is_no_effect() -> None:
    case = Case(effect=0.1)
    measured = case.measured()
    again = (np.asarray(measured.base) + case.noise(0.1)).tolist()
    figures = judge_receipt(case.probes(), msgspec.structs.replace(measured, base_again=again))
    assert figures.reason is not None
    assert figures.reason.startswith("no effect")


def test_answer_tokens_are_not_looked_at() -> None:
    case = Case()
    measured = case.measured()
    wrong = np.asarray(measured.adapter)
    wrong[:, CONTEXT:] = -50
    probes = case.probes()
    same = judge_receipt(probes, msgspec.structs.replace(measured, adapter=wrong.tolist()))
    assert same == judge_receipt(probes, measured)


def test_not_a_number_is_refused() -> None:
    case = Case()
    measured = case.measured()
    broken = np.full_like(np.asarray(measured.adapter), np.nan).tolist()
    assert not judge_receipt(
        case.probes(), msgspec.structs.replace(measured, adapter=broken)
    ).passed


def test_too_few_tokens_prove_nothing() -> None:
    case = Case()
    measured = case.measured()
    short = [msgspec.structs.replace(probe, context_tokens=1) for probe in case.probes()]
    figures = judge_receipt(short, measured)
    assert figures.reason == "only 0 context tokens to compare, 16 needed"
    assert judge_receipt([], MeasuredProbes([], [], [])).passed is False


def test_log_probs_of_another_length_are_an_error_not_a_verdict() -> None:
    case = Case()
    measured = case.measured()
    cut = msgspec.structs.replace(measured, base=[row[:-1] for row in measured.base])
    with pytest.raises(ValueError, match="47 log-probs for 48 tokens"):
        judge_receipt(case.probes(), cut)
