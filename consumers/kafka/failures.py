"""Failures of the consumer: which ones pass by themselves, and what a message may say. Pure."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka.errors import (
    CorruptRecordException,
    InvalidSessionTimeoutError,
    KafkaConfigurationError,
    KafkaError,
    RecordTooLargeError,
    UnsupportedCodecError,
    UnsupportedForMessageFormatError,
    UnsupportedSaslMechanismError,
    UnsupportedVersionError,
)

from adaptd.consumers.kafka.topic_admin import BrokerAwayError
from adaptd.daemon.wire.errors import (
    AdaptdError,
    ChainError,
    FreshStartError,
    HaltError,
    SettingsError,
    StoreFullError,
    StoreShortError,
)

# Reading the same records again with the same settings fails in the same way.
_LASTING = (
    CorruptRecordException,
    InvalidSessionTimeoutError,
    KafkaConfigurationError,
    RecordTooLargeError,
    UnsupportedCodecError,
    UnsupportedForMessageFormatError,
    UnsupportedSaslMechanismError,
    UnsupportedVersionError,
)
# These quote no event (invariant 12). Of other errors a message gives only the type and the place.
_SAFE = (AdaptdError, AssertionError, AttributeError, KafkaError, OSError, RuntimeError)
# Brokers and disks come back. Rights and passwords are corrected at the broker, without a restart.
_PASSING = (
    BrokerAwayError,
    KafkaError,
    OSError,
    SettingsError,
    StoreFullError,
    TimeoutError,
)


class ClientCrashedError(AdaptdError):
    """Faust or aiokafka ended by an error of its own, not of a chunk. A new one may not meet it."""


# The number of tries with nothing stored in between. Reading again from the stored offset may help;
# if it does not, nothing in this process does. Memory gets more tries: a long query may hold it.
_TRIES: dict[type[Exception], int] = {ClientCrashedError: 5, ChainError: 5, StoreShortError: 20}
RETRYABLE = tuple(_TRIES)


def tries_exhausted(error: Exception, times: int) -> HaltError | None:
    """Return the error that ends the process after so many in a row; None: try again.

    A client's crash asks for a fresh process, which may not meet it. The others would be met again.
    """
    if times < _TRIES[type(error)]:
        return None
    if isinstance(error, ClientCrashedError):
        return FreshStartError(error.where, error.problem, error.remedy)
    return as_halt(error)


def as_halt(error: Exception) -> HaltError:
    """Turn a failure that does not pass by itself into one that halts ingestion."""
    return HaltError(
        "consumer",
        f"{safe_message(error)}; nothing was skipped",
        "Mend the cause, then run `adaptd ingest resume`",
    )


def is_transient(error: BaseException) -> bool:
    """Return True where the consumer tries again without a limit, rather than halts.

    An unknown error is not transient: it would fail for ever on the same chunk, and no chunk may be
    skipped.
    """
    if type(error) is KafkaError or isinstance(error, _LASTING):  # bare: its own task ended
        return False
    return isinstance(error, _PASSING)


@contextmanager
def as_client_error() -> Iterator[None]:
    """Raise ClientCrashedError for a failure inside that concerns no chunk and does not pass."""
    try:
        yield
    except Exception as error:
        if is_transient(error):
            raise
        problem = safe_message(error)
        raise ClientCrashedError("consumer", problem, "It is started again by itself") from error


def safe_message(error: BaseException) -> str:
    """Describe an error in one line, without anything that a sender sent."""
    if isinstance(error, AdaptdError):
        return str(error)
    name = type(error).__name__
    if isinstance(error, _SAFE):
        return f"{name}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    return f"{name} at {frames[-1].filename}:{frames[-1].lineno}" if frames else name
