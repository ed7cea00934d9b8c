"""What follows a failed attempt. Pure."""

import msgspec

from adaptd.daemon.domain.states import FailureCause

MAX_ATTEMPTS = 5


class Again(msgspec.Struct, frozen=True):
    """Start another child; it goes on from the last checkpoint."""

    micro_batch: int | None


def after_failure(
    cause: FailureCause,
    *,
    stalled: int,
    lowered_to: int | None,
    micro_batch: int,
    killed_again: bool = False,
) -> Again | FailureCause:
    """Another child, or the cause that the run fails with. None follows MAX_ATTEMPTS in vain.

    Out of memory is tried once more with half the micro-batch (`lowered_to` is set from then on);
    a killed child resumes. One that SIGKILL ended twice at the same step (`killed_again`) ran out
    of memory: without a GPU nobody raises, the system kills. Anything else would fail again.
    """
    if cause is FailureCause.KILLED and killed_again:
        cause = FailureCause.OOM
    if stalled >= MAX_ATTEMPTS:
        return cause
    if cause is FailureCause.OOM and lowered_to is None and micro_batch > 1:
        return Again(micro_batch // 2)
    return Again(lowered_to) if cause is FailureCause.KILLED else cause
