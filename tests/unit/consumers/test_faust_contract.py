"""A contract: the insides of Faust and aiokafka that the consumer uses.

On failure read consumers/kafka/faust_app.py and consumers/kafka/fetch_thread.py, then upgrade.
"""

import inspect
from importlib.metadata import version
from pathlib import Path

import aiokafka
import faust
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.protocol import fetch
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.consumer import Consumer, ThreadDelegateConsumer
from faust.transport.drivers import aiokafka as driver

from adaptd.consumers.kafka.faust_app import (
    ChunkConsumer,
    ConsumerSettings,
    _faust_credentials,
    build_app,
)
from adaptd.consumers.kafka.fetch_thread import FetchThread
from adaptd.consumers.kafka.service import IngestService
from adaptd.daemon.wire.kafka import KafkaSecurity


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # pyright: ignore[reportArgumentType] - callables


def test_the_versions_are_those_this_was_read_in() -> None:
    assert version("faust-streaming").startswith("0.15.")
    assert version("aiokafka").startswith("0.14.")


def test_faust_asks_the_overridden_methods_in_the_shape_we_override() -> None:
    assert parameters(faust.App._new_transport) == ["self"]
    assert parameters(driver.Consumer._new_consumer_thread) == ["self"]
    assert parameters(driver.AIOKafkaConsumerThread._create_worker_consumer) == [
        "self",
        "transport",
    ]
    assert parameters(Consumer.getmany) == parameters(ChunkConsumer.getmany) == ["self", "timeout"]
    assert inspect.isasyncgenfunction(Consumer.getmany)
    assert parameters(ThreadDelegateConsumer.seek_to_committed) == ["self"]


def test_faust_seeks_after_every_assignment_through_our_override() -> None:
    assert "consumer.perform_seek()" in inspect.getsource(Recovery._resume_streams)
    assert "await self.seek_to_committed()" in inspect.getsource(Consumer.perform_seek)


def test_the_table_manager_starts_as_fausts_does_without_its_sleep() -> None:
    body = inspect.getsource(TableManager.on_start).split('"""')[2]
    assert [line.strip() for line in body.strip().splitlines()] == [
        "await self.sleep(1.0)",
        "if not self.should_stop:",
        "await self._update_channels()",
        "await self.recovery.start()",
    ]


def test_the_helpers_we_call_are_there() -> None:
    assert parameters(Consumer._wait_next_records) == ["self", "timeout"]
    assert parameters(driver.Consumer._to_message) == ["self", "tp", "record"]
    assert "self._buffered_partitions = set()" in inspect.getsource(Consumer.__init__)
    for name in ("seek_wait", "call_thread", "_ensure_consumer"):
        assert callable(getattr(FetchThread, name)), name


def test_a_chunk_of_zero_acks_is_passed_on_as_it_is() -> None:
    """The value of a message is our Chunk; the raw codec must hand it to the agent untouched."""
    chunk = object()
    app = faust.App("codec", broker="kafka://127.0.0.1:1")

    assert app.serializers.loads_value(None, chunk, serializer="raw") is chunk  # pyright: ignore[reportArgumentType] - the point


def test_a_member_can_ask_for_a_new_share_of_partitions() -> None:
    assert parameters(GroupCoordinator.request_rejoin) == ["self"]
    assert parameters(AIOKafkaClient.force_metadata_update) == ["self"]
    assert "asyncio.shield" in inspect.getsource(AIOKafkaClient.force_metadata_update)
    assert "self._coordinator = GroupCoordinator(" in inspect.getsource(
        aiokafka.AIOKafkaConsumer.start
    )


def test_what_keeps_us_out_of_the_group_reaches_whoever_waits_for_an_assignment() -> None:
    told = inspect.getsource(GroupCoordinator._push_error_to_user)
    assert "self._subscription.abort_waiters(exc)" in told
    assert "self._error_consumed_fut = create_future()" in told
    assert "self._error_consumed_fut.set_result" in inspect.getsource(GroupCoordinator.check_errors)
    aborted = inspect.getsource(SubscriptionState.abort_waiters)
    assert "for waiter in self._assignment_waiters" in aborted
    assert "_assignment_waiters" in inspect.getsource(SubscriptionState.wait_for_assignment)
    assert "self._subscription = SubscriptionState" in inspect.getsource(
        aiokafka.AIOKafkaConsumer.__init__
    )


def test_credentials_reach_aiokafka_as_we_give_them(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("pass")
    security = KafkaSecurity(
        protocol="SASL_PLAINTEXT", username="u", password_path=tmp_path / "password"
    )
    found = driver.credentials_to_aiokafka_auth(_faust_credentials(security))
    assert found == security.client_options() | {"ssl_context": None}
    assert _faust_credentials(KafkaSecurity()) is None
    assert driver.credentials_to_aiokafka_auth(
        _faust_credentials(KafkaSecurity(protocol="SSL"))
    ).keys() == {"security_protocol", "ssl_context"}


def test_fetches_go_through_the_send_that_we_wrap() -> None:
    assert "self._client = AIOKafkaClient" in inspect.getsource(aiokafka.AIOKafkaConsumer.__init__)
    assert "await self._client.send(node_id, request)" in inspect.getsource(
        Fetcher._proc_fetch_request
    )
    assert "self._client" in inspect.getsource(aiokafka.AIOKafkaConsumer.start)
    assert "MemoryRecords(part_data[-1])" in inspect.getsource(Fetcher._proc_fetch_request)


def test_an_answer_tells_each_partitions_error_after_its_number() -> None:
    for number in range(12):
        answer = getattr(fetch, f"FetchResponse_v{number}").SCHEMA
        _, partitions = answer.fields[answer.names.index("topics")].array_of.fields
        assert partitions.array_of.names[:2] == ("partition", "error_code")
    assert not hasattr(fetch, "FetchResponse_v12")


def test_aiokafka_reads_on_by_name_where_a_partition_was_lost_for_a_while() -> None:
    """Asked with a topic's id, as of version 13, the broker itself would refuse another topic."""
    after_fetch = inspect.getsource(Fetcher._proc_fetch_request)
    lost = after_fetch.index("Errors.NotLeaderForPartitionError,")
    told = after_fetch[lost : after_fetch.index("elif", lost)].split()
    assert told == [
        "Errors.NotLeaderForPartitionError,",
        "Errors.UnknownTopicOrPartitionError,",
        "):",
        "self._client.force_metadata_update()",
    ]


def test_records_tell_their_size() -> None:
    told = {"serialized_value_size", "serialized_key_size", "headers"}
    assert told <= aiokafka.ConsumerRecord.__dataclass_fields__.keys()


def test_aiokafka_takes_isolation_and_waiting_time_at_the_start_and_not_when_made() -> None:
    start = inspect.getsource(aiokafka.AIOKafkaConsumer.start)

    assert "isolation_level=self._isolation_level" in start
    assert "fetch_max_wait_ms=self._fetch_max_wait_ms" in start
    assert "fetch_min_bytes=self._fetch_min_bytes" in start
    assert callable(aiokafka.AIOKafkaConsumer.last_stable_offset)


async def test_the_app_is_built_without_anything_we_do_not_need(tmp_path: Path) -> None:
    settings = ConsumerSettings(
        bootstrap="127.0.0.1:1",
        group="g",
        instance="g-0",
        topics=("a", "b"),
        session_timeout_s=10,
        security=KafkaSecurity(),
        directory=tmp_path,
    )

    app = build_app(settings, reader=None)  # pyright: ignore[reportArgumentType] - never started

    assert app.conf.consumer_auto_offset_reset == "none"
    assert app.conf.consumer_group_instance_id == "g-0"
    assert app.conf.processing_guarantee.name == "AT_LEAST_ONCE"
    assert not app.tables.changelog_topics
    assert app.transport.Consumer is ChunkConsumer
    assert IngestService.__doc__
