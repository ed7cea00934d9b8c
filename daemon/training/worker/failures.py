"""From an exception to the cause that a run fails with. Torch's errors are known by their names."""

import errno

from adaptd.daemon.domain.states import FailureCause
from adaptd.daemon.training.job import EXIT_CODES
from adaptd.daemon.wire.errors import AdaptdError

_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")
_NO_DISK = ("no space left", "disk quota exceeded", "pytorchstreamwriter failed")
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)


class DataError(AdaptdError):
    """The snapshot cannot be trained on. The message has the row's number and none of its text."""


class NotFiniteError(Exception):
    """The loss or a weight became infinite or not a number."""


class TimeLimitError(Exception):
    """The job's time is used up."""


def explain_failure(error: BaseException) -> tuple[FailureCause, str]:
    """The cause of a failure, and words that hold no text of a row."""
    if isinstance(error, DataError):
        return FailureCause.DATA, str(error)
    if isinstance(error, NotFiniteError):
        return FailureCause.NAN, str(error)
    if isinstance(error, TimeLimitError):
        return FailureCause.TIMEOUT, str(error)
    text = str(error).lower()
    if isinstance(error, MemoryError) or _is_of_kind(error, text, _NO_MEMORY, "OutOfMemoryError"):
        return FailureCause.OOM, "memory ran out"
    if getattr(error, "errno", None) in _DISK_ERRORS or _is_of_kind(error, text, _NO_DISK):
        return FailureCause.DISK, "the disk is full or cannot be written"
    return FailureCause.ERROR, _safe_words(error)


def exit_code(cause: FailureCause) -> int:
    return EXIT_CODES.get(cause, EXIT_CODES[FailureCause.ERROR])


def _is_of_kind(error: BaseException, text: str, marks: tuple[str, ...], kind: str = "") -> bool:
    return type(error).__name__ == kind or any(mark in text for mark in marks)


def _safe_words(error: BaseException) -> str:
    # Other errors may quote the row that they met, so only their kind is passed on.
    if isinstance(error, AdaptdError | ImportError | FileNotFoundError):
        return str(error)
    return f"{type(error).__name__}; see trainer.log in the run directory"
