"""The topics that are read: their names, whether they exist, and what the broker has of them."""

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from aiokafka.conn import create_conn
from aiokafka.errors import AuthenticationFailedError
from aiokafka.errors import BrokerResponseError as RefusedByBroker
from aiokafka.errors import KafkaError as ClientError
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import (
    BrokerResponseError,
    KafkaError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from kafka.protocol.consumer import OffsetSpec
from kafka.structs import TopicPartition

from adaptd.consumers.decoding.json_events import Kind
from adaptd.consumers.kafka.topic_advice import WANTED, TopicSettings
from adaptd.daemon.domain.ingest import LogRange, Partition
from adaptd.daemon.wire.errors import AwayError, SettingsError
from adaptd.daemon.wire.events import FEEDBACK_TOPIC, INTERACTIONS_TOPIC
from adaptd.daemon.wire.kafka import KafkaSecurity
from adaptd.daemon.wire.kafka_clients import connect

T = TypeVar("T")
Client = Any  # KafkaAdminClient: the checker has the stubs of an older release
_REFUSALS = (BrokerResponseError, RefusedByBroker, AuthenticationFailedError, ssl.SSLError)
# A caller waits, and the broker has just accepted a connection: the client's own 30 s are too long.
_BOOTSTRAP_MS, _RECONNECT_MS = 3_000, 500
_NO_TOPIC_ID = "00000000-0000-0000-0000-000000000000"  # brokers before 2.8


class BrokerAwayError(AwayError):
    """The broker does not answer, or refuses. Worth trying again."""


class Topics(msgspec.Struct, frozen=True):
    """The names of the topics. One broker can serve several installations under other names."""

    interactions: str = INTERACTIONS_TOPIC
    feedback: str = FEEDBACK_TOPIC

    @property
    def kinds(self) -> dict[str, Kind]:
        return {self.interactions: "interaction", self.feedback: "feedback"}


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """The topics that exist: name to id (None: the broker gives none) and number of partitions."""

    cluster_id: str | None
    topics: Mapping[str, tuple[str | None, int]]

    @property
    def partitions(self) -> frozenset[Partition]:
        return frozenset(
            Partition(name, number)
            for name, (_, partitions) in self.topics.items()
            for number in range(partitions)
        )

    def missing(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name not in self.topics]


class TopicAdmin:
    """kafka-python's admin client, one call at a time in a thread. Connects on first use.

    Every method raises BrokerAwayError where the broker does not answer within `timeout_s`.
    """

    def __init__(self, bootstrap: str, *, security: KafkaSecurity, timeout_s: float = 10) -> None:
        self._bootstrap = bootstrap
        self._security = security
        self._timeout_s = timeout_s
        self._client: Client | None = None
        self._turn = asyncio.Lock()

    async def describe(self, names: Sequence[str]) -> Cluster:
        """Read which of these topics exist now. Creates none."""
        return await self._call_client(lambda client: _describe_topics(client, names))

    async def create(self, names: Sequence[str], *, partitions: int) -> None:
        """Create topics with the broker's replication. One that exists is left as it is."""
        await self._call_client(lambda client: _create_topics(client, names, partitions))

    async def settings(self, names: Sequence[str]) -> list[TopicSettings]:
        """Read the settings of those that exist. Without the right to ask, `config` is empty."""
        return await self._call_client(lambda client: _read_settings(client, names))

    async def ranges(self, cluster: Cluster) -> dict[Partition, LogRange]:
        """Read what the broker has of every partition."""
        return await self._call_client(lambda client: _read_ranges(client, cluster))

    async def close(self) -> None:
        async with self._turn:
            await self._drop_client()

    async def _call_client(self, work: Callable[[Client], T]) -> T:
        async with self._turn:
            try:
                options = self._security.client_options()
                if self._client is None:
                    await _check_connection(self._bootstrap, options, self._timeout_s)
                return await asyncio.to_thread(self._run_connected, work, options)
            except SettingsError as error:  # e.g. the password file is gone
                raise BrokerAwayError(error.where, error.problem, error.remedy) from error
            except (KafkaError, ClientError, OSError, ValueError, TimeoutError) as error:
                await self._drop_client()
                raise _as_away_error(self._bootstrap, error) from error

    def _run_connected(self, work: Callable[[Client], T], options: Mapping[str, Any]) -> T:
        if self._client is None:
            self._client = connect(
                KafkaAdminClient,
                bootstrap_servers=self._bootstrap,
                client_id="adaptd-admin",
                request_timeout_ms=int(self._timeout_s * 1000),
                bootstrap_timeout_ms=_BOOTSTRAP_MS,
                reconnect_backoff_max_ms=_RECONNECT_MS,
                **options,
            )
        return work(self._client)

    async def _drop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await asyncio.to_thread(client.close)


def _as_away_error(bootstrap: str, error: Exception) -> BrokerAwayError:
    cause = f"{type(error).__name__}: {error}"
    if isinstance(error, _REFUSALS):
        remedy = "Check certificates, the user, its password and its rights (ACLs) at the broker"
        return BrokerAwayError(bootstrap, f"the broker refuses ({cause})", remedy)
    remedy = "Check ADAPTD_KAFKA_BOOTSTRAP, ADAPTD_KAFKA_SECURITY_PROTOCOL and that the broker runs"
    return BrokerAwayError(bootstrap, f"the broker does not answer ({cause})", remedy)


async def _check_connection(bootstrap: str, options: Mapping[str, Any], timeout_s: float) -> None:
    """Connect to one server of the list with TLS and SASL, and disconnect.

    Raises:
        KafkaError, OSError, ValueError: the failure at the last server of the list.
    """
    # kafka-python's own client says only that it found no broker, not why.
    refused: Exception = OSError("no server is given")
    for server in bootstrap.split(","):
        host, _, port = server.strip().rpartition(":")
        limit_ms = int(timeout_s * 1000)
        try:
            connection = await create_conn(
                host.strip("[]"), int(port), request_timeout_ms=limit_ms, **options
            )
        except (ClientError, OSError, ValueError) as error:
            refused = error
        else:
            connection.close()
            return
    raise refused


def _describe_topics(client: Client, names: Sequence[str]) -> Cluster:
    """Raise KafkaError where the broker cannot or may not say whether a topic exists."""
    found: list[dict[str, Any]] = client.describe_topics(list(names))
    for topic in found:
        if topic["error_code"] not in (0, UnknownTopicOrPartitionError.errno):
            raise for_code(topic["error_code"])(f"topic {topic['name']}")
    topics = {
        topic["name"]: (_read_topic_id(topic), len(topic["partitions"]))
        for topic in found
        if topic["error_code"] == 0
    }
    return Cluster(cluster_id=client.describe_cluster().get("cluster_id"), topics=topics)


def _read_topic_id(topic: dict[str, Any]) -> str | None:
    found = str(topic.get("topic_id") or _NO_TOPIC_ID)
    return None if found == _NO_TOPIC_ID else found


def _create_topics(client: Client, names: Sequence[str], partitions: int) -> None:
    for name in names:
        try:
            wanted = {"num_partitions": partitions, "configs": WANTED}
            client.create_topics({name: wanted}, wait_for_metadata=True)
        except TopicAlreadyExistsError:
            continue  # created by another client meanwhile


def _read_settings(client: Client, names: Sequence[str]) -> list[TopicSettings]:
    found = [topic for topic in client.describe_topics(list(names)) if topic["error_code"] == 0]
    config = _read_config(client, [topic["name"] for topic in found])
    return [
        TopicSettings(
            name=topic["name"],
            partitions=len(topic["partitions"]),
            replicas=min(
                (len(p.get("replica_nodes") or ()) for p in topic["partitions"]), default=0
            ),
            config=config.get(topic["name"], {}),
        )
        for topic in found
    ]


def _read_config(client: Client, names: Sequence[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    try:
        answer = client.describe_configs(asked, config_filter="all")
    except BrokerResponseError:  # no right to ask; the other settings are still worth judging
        return {}
    return {
        name: {key: str(entry["value"]) for key, entry in entries.items()}
        for resources in answer.values()
        for name, entries in resources.items()
    }


def _read_ranges(client: Client, cluster: Cluster) -> dict[Partition, LogRange]:
    topic_ids = {
        Partition(name, number): topic_id
        for name, (topic_id, partitions) in cluster.topics.items()
        for number in range(partitions)
    }
    if not topic_ids:
        return {}
    asked = [TopicPartition(*partition) for partition in topic_ids]
    earliest = client.list_partition_offsets(dict.fromkeys(asked, OffsetSpec.EARLIEST))
    end = client.list_partition_offsets(dict.fromkeys(asked, OffsetSpec.LATEST))
    return {
        Partition(*at): LogRange(
            topic_ids[Partition(*at)], earliest[at].offset, end[at].offset, cluster.cluster_id
        )
        for at in asked
    }
