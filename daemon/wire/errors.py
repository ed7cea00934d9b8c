"""Errors a person may see: where, what was found, what to do."""

from adaptd.daemon.wire.texts import encodable

_SENTENCE_ENDS = (".", "?", "!", "…")


def join_sentences(*parts: str) -> str:
    """Parts as sentences, each exactly as given; one that ends already gets no full stop."""
    ended = (part if part.endswith(_SENTENCE_ENDS) else f"{part}." for part in parts if part)
    return " ".join(ended)


class AdaptdError(Exception):
    """Anything adaptd refuses or cannot do, told without a stack trace.

    The message reads `where: problem. remedy.`; code reads the fields. All of them can be written
    as UTF-8, whatever they quote.
    """

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        where, problem, remedy = encodable(where), encodable(problem), encodable(remedy)
        super().__init__(f"{where}: {join_sentences(problem, remedy)}")
        self.where = where
        self.problem = problem
        self.remedy = remedy


class SettingsError(AdaptdError):
    """A setting is missing or wrong. Exit code 2."""


class PolicyError(AdaptdError):
    """A policy file cannot be used. `where` opens with file:line, so an editor can jump there."""


class StoreError(AdaptdError):
    """The store cannot be opened or is not what it should be."""


class StoreFullError(StoreError):
    """The disk is full. Nothing was stored; the same succeeds once there is room."""


class StoreShortError(StoreError):
    """Memory was short, or somebody else wrote. Nothing was stored; soon tried again, it may be."""


class HaltError(AdaptdError):
    """Ingestion met something only a person may decide. Stored as `halted`, exit code 70."""


class ChainError(HaltError):
    """Chunks came out of order, so records between them would be lost. Reading again mends it."""


class FreshStartError(HaltError):
    """Only a new process helps, and it may read on: exit code 70, nothing is stored as halted."""


class AwayError(AdaptdError):
    """Somebody we need does not answer just now. Worth trying again."""


class HostError(AdaptdError):
    """The serving host (vLLM) refused or did not answer."""


class EpochError(HostError):
    """A gateway follows another table under this epoch or a later one: publish above it."""

    def __init__(self, where: str, epoch: int) -> None:
        super().__init__(where, f"it follows routes of epoch {epoch}", "Publish under a higher one")
        self.epoch = epoch


class RefusedError(AdaptdError):
    """A command asks for what the state or a rule does not allow. Exit code 1."""


class NotPermittedError(RefusedError):
    """The token does not reach so far. Over HTTP: 403."""


class TooLargeError(RefusedError):
    """More was sent at once than is taken. Over HTTP: 413."""


class MalformedError(RefusedError):
    """What was sent cannot be read at all. Over HTTP: 400."""


class UnknownEncodingError(RefusedError):
    """It was sent in an encoding that is not taken. Over HTTP: 415."""


class TooSlowError(RefusedError):
    """It did not arrive in time. Over HTTP: 408."""


class BusyError(RefusedError):
    """Too much waits already; the same may be sent again. Over HTTP: 429 with Retry-After."""
