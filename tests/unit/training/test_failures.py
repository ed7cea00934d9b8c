"""From exceptions to causes, without a word of the training rows."""

import errno

import pytest

from adaptd.daemon.domain.states import FailureCause
from adaptd.daemon.training.worker.failures import (
    DataError,
    NotFiniteError,
    TimeLimitError,
    exit_code,
    explain_failure,
)


class OutOfMemoryError(RuntimeError):
    """An error with the name that torch.cuda uses."""


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), FailureCause.OOM),
        (OutOfMemoryError("CUDA"), FailureCause.OOM),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "oom"),
        (OSError(errno.ENOSPC, "No space left on device"), FailureCause.DISK),
        (RuntimeError("PytorchStreamWriter failed writing file data/3"), FailureCause.DISK),
        (DataError("row 3", "its ids are wrong", "Build it again"), FailureCause.DATA),
        (NotFiniteError("the loss of step 3 is nan"), FailureCause.NAN),
        (TimeLimitError("60 s were over"), FailureCause.TIMEOUT),
        (ImportError("No module named 'trl'"), FailureCause.ERROR),
        (KeyError("secret words"), FailureCause.ERROR),
    ],
)
def test_each_error_has_its_cause(error: BaseException, cause: FailureCause) -> None:
    assert explain_failure(error)[0] == cause


def test_an_unknown_error_is_named_and_never_quoted() -> None:
    assert "secret words" not in explain_failure(KeyError("secret words"))[1]


def test_causes_differ_in_their_exit_codes() -> None:
    causes = [cause for cause in FailureCause if cause is not FailureCause.KILLED]
    assert len({exit_code(cause) for cause in causes}) == len(causes)
    assert 0 not in map(exit_code, FailureCause)
