"""A daemon's address that leads nowhere is told in one line."""

import pytest

from daemon.commands.client import DaemonClient
from daemon.commands.errors import NoDaemonError


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:1", "gopher://somewhere"])
def test_an_address_that_leads_nowhere(url: str) -> None:
    with pytest.raises(NoDaemonError) as caught:
        DaemonClient(url, token=None).get("/v1/status")
    assert caught.value.where == url
