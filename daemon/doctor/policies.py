"""Needs of one policy file: items for its gate, time for its steps; and if it can conclude."""

import contextlib
from pathlib import Path

import msgspec

from adaptd.daemon.doctor.traffic import Seen, duration, hours_to_notice
from adaptd.daemon.evaluation.criteria import Gate
from adaptd.daemon.evaluation.power import Need, gate_needs, gate_problems
from adaptd.daemon.evaluation.suites import Suite
from adaptd.daemon.policy.golden import Unreadable, read_golden
from adaptd.daemon.policy.load import Limits, Loaded, line_of, load_policy
from adaptd.daemon.policy.model import Policy
from adaptd.daemon.wire.errors import join_sentences
from adaptd.daemon.wire.files import shown_path

DOUBLED = 2.0  # the harm a step should notice: twice live's negatives


class ItemsNeeded(msgspec.Struct, frozen=True, kw_only=True):
    """One criterion of the gate, and the items its suite has and needs.

    `first` and `eighth`: for the first and the eighth candidate of a holdout version, where a
    tenth of the answers differ.
    """

    criterion: str
    has: int
    first: int
    eighth: int


class StepTime(msgspec.Struct, frozen=True, kw_only=True):
    """One step, and how long it takes to notice a doubled negative rate there (None: unknown)."""

    step: int
    weight: float
    seconds: float | None
    words: str


class PolicyReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `adaptd policy check` says of one file. `problems` keep it from being used."""

    path: str
    model: str | None
    problems: list[str]
    items: list[ItemsNeeded] = []
    steps: list[StepTime] = []


def check_policy(path: Path, *, folder: Path, limits: Limits, seen: Seen | None) -> PolicyReport:
    """Load and judge one file. `seen` is the alias's traffic, where it is known. Never raises."""
    loaded = load_policy(path, folder=folder, limits=limits)
    if loaded.policy is None:
        problems = [str(problem) for problem in loaded.problems]
        return PolicyReport(path=shown_path(path), model=None, problems=problems)
    return report(loaded, loaded.policy, folder=folder, seen=seen)


def report(loaded: Loaded, policy: Policy, *, folder: Path, seen: Seen | None) -> PolicyReport:
    gate, items = Gate.of(policy), suite_items(policy, folder)
    where = f"{loaded.path}:{line_of(loaded.text, 'gate')}"
    return PolicyReport(
        path=str(loaded.path),
        model=policy.model,
        problems=[f"{where}: {join_sentences(problem)}" for problem in gate_problems(gate, items)],
        items=[_describe_need(need) for need in gate_needs(gate, items)],
        steps=step_times(policy, seen),
    )


def suite_items(policy: Policy, folder: Path) -> dict[Suite, int]:
    """Fresh has `at_least` when a run starts; golden what its file holds, nothing if it is gone."""
    holdout, golden = policy.curate.holdout, 0
    if holdout.golden:
        with contextlib.suppress(Unreadable):
            golden = len(read_golden(folder, holdout.golden).items)
    return {Suite.FRESH: holdout.at_least, Suite.GOLDEN: golden}


def step_times(policy: Policy, seen: Seen | None) -> list[StepTime]:
    """Per step: the time its canary takes to show twice live's negatives, after the maturity."""
    guard = policy.rollout.guard
    found = []
    for number, step in enumerate(policy.rollout.steps, 1):
        seconds = None
        if seen is not None and "negative" in guard.watch:
            metrics = len(guard.watch)
            hours = hours_to_notice(
                seen, step.weight, ratio=DOUBLED, alpha=guard.alpha, metrics=metrics
            )
            seconds = 3600 * hours + guard.maturity.total_seconds()
        words = "unknown: no traffic seen" if seconds is None else duration(seconds)
        found.append(StepTime(step=number, weight=step.weight, seconds=seconds, words=words))
    return found


def _describe_need(need: Need) -> ItemsNeeded:
    criterion = need.criterion
    words = f"{criterion.role} {criterion.metric} on {criterion.suite}"
    if criterion.margin is not None:
        words += f" by {criterion.margin:g}"
    return ItemsNeeded(
        criterion=words, has=need.items, first=need.usual_first, eighth=need.usual_eighth
    )
