"""Errors that people may see: where, problem, remedy."""

from adaptd.daemon.wire.texts import encodable

_SENTENCE_ENDS = (".", "?", "!", "…")


def join_sentences(*parts: str) -> str:
    """Join parts as sentences, each as given; one that ends already gets no full stop."""
    ended = (part if part.endswith(_SENTENCE_ENDS) else f"{part}." for part in parts if part)
    return " ".join(ended)


class AdaptdError(Exception):
    """Anything adaptd refuses or cannot do, shown without a stack trace.

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
    """Out of memory or a write conflict. Nothing was stored; retried shortly."""


class HaltError(AdaptdError):
    """Ingestion met a case that a person must decide. Stored as `halted`, exit code 70."""


class ChainError(HaltError):
    """Chunks came out of order, so records between them would be lost. Reading again helps."""


class FreshStartError(HaltError):
    """Only a new process helps, and it may read on: exit code 70, without a stored halt."""


class AwayError(AdaptdError):
    """A needed server does not answer just now. A retry may succeed."""


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
    """The token lacks the right. Over HTTP: 403."""


class TooLargeError(RefusedError):
    """The body is larger than the limit. Over HTTP: 413."""


class MalformedError(RefusedError):
    """The body cannot be read at all. Over HTTP: 400."""


class UnknownEncodingError(RefusedError):
    """The body has an unknown encoding. Over HTTP: 415."""


class TooSlowError(RefusedError):
    """The body did not arrive in time. Over HTTP: 408."""


class BusyError(RefusedError):
    """Too much waits already; send the same again later. Over HTTP: 429 with Retry-After."""
