"""The id a demo cluster is formatted with."""

from uuid import UUID

import pytest

from adaptd.daemon.demo.broker import cluster_id


@pytest.mark.parametrize("first", [0x00, 0x7F, 0xF8, 0xFB, 0xFF])  # F8 to FB would give a dash
def test_no_cluster_id_looks_like_an_option(first: int) -> None:
    cluster = cluster_id(UUID(bytes=bytes([first]) + bytes(15)))
    assert len(cluster) == 22
    assert not cluster.startswith("-")
