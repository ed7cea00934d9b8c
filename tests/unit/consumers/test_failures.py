"""Failures: which ones pass by themselves; messages of the others quote nothing of an event."""

import aiokafka.errors as kafka
import duckdb
import pytest

from adaptd.consumers.kafka.failures import (
    RETRYABLE,
    ClientCrashedError,
    as_client_error,
    is_transient,
    safe_message,
    tries_exhausted,
)
from adaptd.consumers.kafka.topic_admin import BrokerAwayError
from adaptd.consumers.kafka.topic_identity import GapError
from adaptd.daemon.store.database.sql_errors import write_error
from adaptd.daemon.wire.errors import (
    ChainError,
    FreshStartError,
    HaltError,
    SettingsError,
    StoreError,
    StoreFullError,
    StoreShortError,
)

WORDS = ("somewhere", "something", "Do this")


@pytest.mark.parametrize(
    "error",
    [
        kafka.KafkaConnectionError(),
        kafka.NotLeaderForPartitionError(),
        kafka.RequestTimedOutError(),
        kafka.TopicAuthorizationFailedError(),
        kafka.UnknownError(),
        BrokerAwayError(*WORDS),
        SettingsError(*WORDS),
        StoreFullError(*WORDS),
        ConnectionResetError(),
        TimeoutError(),
    ],
)
def test_what_passes_by_itself(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        kafka.CorruptRecordException(),
        kafka.RecordTooLargeError(),
        kafka.UnsupportedCodecError(),
        kafka.KafkaError("Unexpected error during data retrieval"),
        GapError([]),
        StoreError(*WORDS),
        KeyError("prompt"),
        ValueError(),
        MemoryError(),
    ],
)
def test_what_does_not(error: Exception) -> None:
    assert not is_transient(error)


@pytest.mark.parametrize(
    ("error", "tries", "end"),
    [
        (ClientCrashedError(*WORDS), 5, FreshStartError),
        (ChainError(*WORDS), 5, HaltError),
        (StoreShortError(*WORDS), 20, HaltError),
    ],
)
def test_what_reading_again_does_not_mend_ends_it(
    error: Exception, tries: int, end: type[HaltError]
) -> None:
    assert isinstance(error, RETRYABLE)
    assert not any(tries_exhausted(error, times) for times in range(1, tries))
    assert type(tries_exhausted(error, tries)) is end


def test_only_the_kind_and_the_place_of_an_unknown_error_are_told() -> None:
    with pytest.raises(ValueError, match="secret") as caught:
        raise ValueError("secret answer")
    assert "secret" not in safe_message(caught.value)
    assert "test_failures.py:" in safe_message(caught.value)
    assert safe_message(StoreError(*WORDS)) == "somewhere: something. Do this."


def test_the_client_is_blamed_for_its_own_errors_only() -> None:
    with pytest.raises(ClientCrashedError), as_client_error():
        raise KeyError
    with pytest.raises(kafka.KafkaConnectionError), as_client_error():
        raise kafka.KafkaConnectionError


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (duckdb.IOException("No space left on device"), StoreFullError),
        (duckdb.IOException("Could not write: File too large"), StoreFullError),
        (duckdb.IOException("Could not read: Input/output error"), StoreError),
        (duckdb.IOException("Cannot open file: Permission denied"), StoreError),
        (
            duckdb.TransactionException(
                "Failed to commit: Could not write: No space left on device"
            ),
            StoreFullError,
        ),
        (duckdb.OutOfMemoryException("failed to offload data block of size 2"), StoreFullError),
        (duckdb.OutOfMemoryException("full"), StoreShortError),
        (duckdb.TransactionException("conflict"), StoreShortError),
        (duckdb.FatalException("database has been invalidated"), FreshStartError),
        (duckdb.CatalogException("no such table"), StoreError),
        (duckdb.ConversionException("cannot convert 'secret'"), StoreError),
    ],
)
def test_what_the_store_says(error: duckdb.Error, kind: type[Exception]) -> None:
    found = write_error(error)
    assert type(found) is kind
    assert "secret" not in str(found)
