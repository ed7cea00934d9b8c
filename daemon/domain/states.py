"""States and their words. Every change of a state is a row in `transitions`."""

from enum import StrEnum


class RunState(StrEnum):
    QUEUED = "queued"
    BUILDING = "building"
    TRAINING = "training"
    TRAINED = "trained"
    EVALUATING = "evaluating"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in _FINAL_RUNS


_FINAL_RUNS = frozenset(
    {
        RunState.ACCEPTED,
        RunState.REJECTED,
        RunState.INCONCLUSIVE,
        RunState.FAILED,
        RunState.CANCELLED,
    }
)


class FailureCause(StrEnum):
    """Cause of a failed run.

    OOM is retried once with half the micro-batch. KILLED resumes; killed twice at the same step
    counts as OOM. ERROR is the trainer's own: a missing package, a missing base, an unknown job.
    """

    OOM = "oom"
    NAN = "nan"
    TIMEOUT = "timeout"
    KILLED = "killed"
    DISK = "disk"
    DATA = "data"
    ERROR = "error"


class RolloutState(StrEnum):
    LOADING = "loading"
    VERIFIED = "verified"
    STEP = "step"  # its number is in the `step` column, counted from 1
    LIVE = "live"
    SUPERSEDED = "superseded"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"

    @property
    def is_final(self) -> bool:
        return self in (RolloutState.SUPERSEDED, RolloutState.ROLLED_BACK, RolloutState.ABORTED)


class AdapterState(StrEnum):
    CANDIDATE = "candidate"
    CANARY = "canary"
    LIVE = "live"
    LAST_GOOD = "last_good"
    RETIRED = "retired"
    QUARANTINED = "quarantined"
    TAINTED = "tainted"
    ERASED = "erased"


class Verdict(StrEnum):
    PASSED = "pass"
    FAILED = "fail"
    INCONCLUSIVE = "inconclusive"
