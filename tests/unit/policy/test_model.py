"""The policy's values, defaults and rules."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from adaptd.daemon.policy.load import parse_policy
from adaptd.daemon.policy.model import Limit, Policy
from adaptd.daemon.policy.values import Duration, Share, read_duration, write_duration
from tests.support.policy_files import FULL, MINIMAL


def the_policy(text: str) -> Policy:
    policy, problems, _ = parse_policy(text, name="support.yaml")
    assert policy is not None, problems
    return policy


def problem_in(text: str) -> str:
    policy, problems, _ = parse_policy(text, name="support.yaml")
    assert policy is None
    return "\n".join(map(str, problems))


def test_every_key_is_read_as_written() -> None:
    policy = the_policy(FULL)

    assert policy.select.caps.min_age == timedelta(hours=1)
    assert policy.train_when.any[1].key == "negative_share"
    assert policy.train_when.any[1].wanted.over == timedelta(hours=6)
    assert [limit.by for limit in policy.gate.must_not_drop] == [0.03, 0.05]
    assert [step.weight for step in policy.rollout.steps] == [0.05, 0.25, 0.5, 0.95]
    assert policy.rollout.keep_watching == timedelta(days=7)


def test_a_short_policy_gets_the_defaults() -> None:
    policy = the_policy(MINIMAL)

    assert policy.select.caps.per_user == 20
    assert policy.select.caps.per_user_share == 0.01
    assert policy.curate.holdout.at_least == 100
    assert policy.rollout.guard.maturity == timedelta(hours=24)
    assert policy.rollout.guard.evidence_above == 0.25
    assert policy.rollout.holdback == 0.05
    assert [step.weight for step in policy.rollout.steps] == [0.05, 0.25, 0.5, 0.95]


def test_a_policy_cannot_be_changed_after_it_was_checked() -> None:
    policy = the_policy(MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        policy.base = "other"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("30 m", 1800), ("6h", 21600), ("7d", 604800), ("0s", 0)]
)
def test_durations_are_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert read_duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "h", "-5m", "1.5h", "1h30m", 30, None, True, "9999999d"]
)
def test_anything_else_is_no_duration(text: object) -> None:
    with pytest.raises(ValidationError, match="is"):
        TypeAdapter(Duration).validate_python(text)


@given(st.integers(0, 900_000))
def test_a_written_duration_is_read_back(seconds: int) -> None:
    assert read_duration(write_duration(timedelta(seconds=seconds))).total_seconds() == seconds


@pytest.mark.parametrize(
    ("value", "share"), [("5%", 0.05), ("0%", 0), ("99.5 %", 0.995), (0.05, 0.05), (1, 1)]
)
def test_shares_are_percent_or_a_number_up_to_one(value: object, share: float) -> None:
    assert TypeAdapter(Share).validate_python(value) == pytest.approx(share)


@pytest.mark.parametrize("value", ["120%", "-1%", 5, -0.1, True, "half", None, "5", float("nan")])
def test_anything_else_is_no_share(value: object) -> None:
    with pytest.raises(ValidationError, match="is"):
        TypeAdapter(Share).validate_python(value)


def test_a_margin_is_in_the_unit_of_its_metric() -> None:
    margin = Limit.model_validate({"metric": "exact_match", "on": "golden", "by": "3 points"})
    assert margin.by == pytest.approx(0.03)
    with pytest.raises(ValidationError):
        Limit.model_validate({"metric": "nll", "on": "golden", "by": "3 points"})
    with pytest.raises(ValidationError):
        Limit.model_validate({"metric": "exact_match", "on": "golden", "by": 3})


def test_weights_rise_at_every_step() -> None:
    text = MINIMAL + "rollout:\n  steps: [{weight: 25%}, {weight: 25%}]\n"
    assert "5: rollout.steps has the weights 25%, 25%. Let weight rise" in problem_in(text)


def test_watching_on_needs_a_holdback() -> None:
    assert "keeps watching without a holdback" in problem_in(MINIMAL + "rollout: {holdback: 0%}\n")
    assert (
        the_policy(MINIMAL + "rollout: {holdback: 0%, keep_watching: 0s}\n").rollout.holdback == 0
    )


@pytest.mark.parametrize(
    ("rollout", "said"),
    [
        (
            "{steps: [{weight: 5%}, {weight: 100%}]}",
            "support.yaml:4: rollout.steps[1].weight is 100%, which leaves nothing on live to"
            " compare with. Give less than 100%, such as 95%.",
        ),
        (
            "{guard: {evidence_above: 51%}}",
            "support.yaml:4: rollout.guard.evidence_above is 51%, which lets a candidate on without"
            " evidence. Give 50% or less.",
        ),
    ],
)
def test_a_guard_cannot_be_switched_off(rollout: str, said: str) -> None:
    assert problem_in(MINIMAL + f"rollout: {rollout}\n") == said


def test_promotion_needs_a_metric_that_is_watched() -> None:
    text = MINIMAL + "rollout: {guard: {watch: [error], promote_on: [negative]}}\n"
    assert "rollout.guard promotes on negative, which is not watched" in problem_in(text)


def test_a_gate_on_golden_needs_the_file() -> None:
    text = MINIMAL + "gate: {must_improve: [{metric: exact_match, on: golden}]}\n"
    assert "has a gate on golden, but no golden file" in problem_in(text)


@pytest.mark.parametrize("trigger", ["{}", "{new_examples: 5, cron: '0 3 * * *'}", "{cron: null}"])
def test_a_trigger_is_exactly_one_reason(trigger: str) -> None:
    text = MINIMAL + f"train_when: {{any: [{trigger}]}}\n"
    assert "exactly one of cron, negative_share, new_examples" in problem_in(text)


@pytest.mark.parametrize("alias", ["Support", "", "a b", "-a", "x" * 64, "süd", "a/b", "a@v1"])
def test_an_alias_is_small_letters(alias: str) -> None:
    assert "model is" in problem_in(MINIMAL.replace("support", f"'{alias}'"))


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "/etc/passwd", "Europe", ""])
def test_a_time_zone_is_an_iana_name(zone: str) -> None:
    assert "Give an IANA name" in problem_in(MINIMAL + f"timezone: '{zone}'\n")
