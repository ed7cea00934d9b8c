"""Whether a version may be rolled out on the verdict it got. Pure."""

from collections.abc import Sequence

from adaptd.daemon.domain.states import Verdict
from adaptd.daemon.store.lifecycle.evaluations import Evaluation


def objection(evaluations: Sequence[Evaluation], live: str | None) -> str | None:
    """Why not, by the newest of its evaluations, which comes first; None where it may.

    It was accepted because it is better than one version, which says nothing of another.
    """
    if not evaluations or evaluations[0].verdict is not Verdict.PASSED:
        return "no evaluation accepted it"
    return outdated(evaluations[0].live, live)


def outdated(judged_against: str | None, live: str | None) -> str | None:
    """Why a verdict against a version says nothing now; a version of None is the base."""
    if judged_against == live:
        return None
    return f"it was judged against {judged_against or 'the base'}; live is {live or 'the base'} now"
