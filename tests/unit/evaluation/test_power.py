"""Numbers of items a gate needs, and gates that can never decide."""

from adaptd.daemon.evaluation.criteria import Criterion, Gate
from adaptd.daemon.evaluation.metrics.exact_match import EXACT_MATCH
from adaptd.daemon.evaluation.metrics.nll import NLL
from adaptd.daemon.evaluation.power import gate_needs, gate_problems, items_still_needed
from adaptd.daemon.evaluation.suites import Suite

BETTER_FRESH = Criterion(EXACT_MATCH, Suite.FRESH)


def a_gate(*keep: Criterion) -> Gate:
    return Gate((BETTER_FRESH,), keep, alpha=0.05, at_least=100)


def test_a_smaller_effect_needs_more_items_and_none_on_the_boundary() -> None:
    def needed(estimate: float) -> int | None:
        return items_still_needed(100, estimate, 0.3, BETTER_FRESH, alpha=0.03)

    assert (needed(0.02) or 0) > (needed(0.05) or 0) > 0
    assert needed(0.02) == needed(-0.02)
    assert needed(0.0) is None


def test_a_gate_with_enough_items_has_no_problem() -> None:
    gate = a_gate(Criterion(EXACT_MATCH, Suite.GOLDEN, 0.03))

    assert gate_problems(gate, {Suite.FRESH: 100, Suite.GOLDEN: 400}) == []


def test_a_golden_file_below_the_minimum_can_never_conclude() -> None:
    gate = a_gate(Criterion(NLL, Suite.GOLDEN, 0.05))

    (problem,) = gate_problems(gate, {Suite.FRESH: 100, Suite.GOLDEN: 60})

    assert "golden holds 60 items and a verdict needs 100: add 40" in problem


def test_a_margin_that_the_golden_file_cannot_prove_is_a_problem() -> None:
    gate = a_gate(Criterion(EXACT_MATCH, Suite.GOLDEN, 0.01))

    (problem,) = gate_problems(gate, {Suite.FRESH: 100, Suite.GOLDEN: 120})

    assert "120 golden items cannot show a drop of less than 0.01" in problem


def test_needs_say_how_many_candidates_a_golden_file_lasts_for() -> None:
    gate = a_gate(Criterion(EXACT_MATCH, Suite.GOLDEN, 0.03))

    _, golden = gate_needs(gate, {Suite.FRESH: 100, Suite.GOLDEN: 120})

    assert golden.candidates == 1
    assert golden.usual_eighth > golden.usual_first > 120
