"""Check that a version's verdict allows its rollout. Pure core of `start` and `observe`."""

from collections.abc import Sequence

from adaptd.daemon.domain.states import Verdict
from adaptd.daemon.store.lifecycle.evaluations import Evaluation


def objection(evaluations: Sequence[Evaluation], live: str | None) -> str | None:
    """Say why a version may not be rolled out; None where it may.

    The newest evaluation comes first.

    A candidate was accepted as better than one version, which says nothing of another.
    """
    if not evaluations or evaluations[0].verdict is not Verdict.PASSED:
        return "no evaluation accepted it"
    return outdated(evaluations[0].live, live)


def outdated(judged_against: str | None, live: str | None) -> str | None:
    """Say why a verdict against a version no longer counts; a version of None is the base."""
    if judged_against == live:
        return None
    return f"it was judged against {judged_against or 'the base'}; live is {live or 'the base'} now"
