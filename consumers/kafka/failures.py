"""Which failures pass by themselves, and what may be told of them. Pure."""

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

# Reading the same again, with the same settings, meets the same.
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
# These quote no event (invariant 12); of others only the kind and the place are told.
_TELLABLE = (AdaptdError, AssertionError, AttributeError, KafkaError, OSError, RuntimeError)
# Brokers and disks come back; rights and passwords are mended at the broker, without us.
_PASSING = (
    BrokerAwayError,
    KafkaError,
    OSError,
    SettingsError,
    StoreFullError,
    TimeoutError,
)


class ClientFellError(AdaptdError):
    """Faust or aiokafka ended by an error of its own, no chunk's. A fresh one may not meet it."""


# Reading again from the stored offset mends these, or else nothing does: how often it is tried
# with nothing stored in between. Memory is given more time: a long query may be what holds it.
_TRIES: dict[type[Exception], int] = {ClientFellError: 5, ChainError: 5, StoreShortError: 20}
MENDABLE = tuple(_TRIES)


def outlasted(error: Exception, times: int) -> HaltError | None:
    """What ends the process now that a mendable error came so many times in a row; None: not yet.

    A new process may not meet the client's; the others would be met again.
    """
    if times < _TRIES[type(error)]:
        return None
    if isinstance(error, ClientFellError):
        return FreshStartError(error.where, error.problem, error.remedy)
    return lasting(error)


def lasting(error: Exception) -> HaltError:
    """A failure that does not pass by itself, as what halts ingestion."""
    return HaltError(
        "consumer",
        f"{told(error)}; nothing was skipped",
        "Mend the cause, then run `adaptd ingest resume`",
    )


def is_transient(error: BaseException) -> bool:
    """Whether to try again, for as long as it takes, rather than to halt.

    What nobody has thought of is not: it would fail for ever on the same chunk, and none may be
    skipped.
    """
    if type(error) is KafkaError or isinstance(error, _LASTING):  # bare: its own task ended
        return False
    return isinstance(error, _PASSING)


@contextmanager
def blaming_client() -> Iterator[None]:
    """What goes wrong inside is not about a chunk: ClientFellError, unless it passes by itself."""
    try:
        yield
    except Exception as error:
        if is_transient(error):
            raise
        raise ClientFellError("consumer", told(error), "It is started again by itself") from error


def told(error: BaseException) -> str:
    """One line without anything that a sender sent."""
    if isinstance(error, AdaptdError):
        return str(error)
    name = type(error).__name__
    if isinstance(error, _TELLABLE):
        return f"{name}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    return f"{name} at {frames[-1].filename}:{frames[-1].lineno}" if frames else name
