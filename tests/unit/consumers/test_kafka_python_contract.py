"""A contract: the insides of kafka-python that the log reader uses.

On failure read consumers/kafka/log_reader.py, then upgrade.
"""

import inspect

from kafka.consumer.fetcher import Fetcher
from kafka.consumer.group import KafkaConsumer


def test_fetched_batches_can_be_bounded_before_they_are_unpacked() -> None:
    assert list(inspect.signature(Fetcher._parse_fetched_data).parameters) == [
        "self",
        "completed_fetch",
    ]
    body = inspect.getsource(Fetcher._parse_fetched_data)
    assert "records = MemoryRecords(completed_fetch.partition_data.records)" in body
    assert "self._parse_fetched_data(" in inspect.getsource(Fetcher)
    assert "self._fetcher = " in inspect.getsource(KafkaConsumer.__init__)
