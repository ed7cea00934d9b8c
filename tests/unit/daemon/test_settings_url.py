"""Where programs on this machine find the daemon."""

import pytest

from adaptd.daemon.settings import Settings, UpstreamSettings


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8600"),
        ("0.0.0.0", "http://127.0.0.1:8600"),
        ("::", "http://[::1]:8600"),
        ("::1", "http://[::1]:8600"),
        ("daemon.internal", "http://daemon.internal:8600"),
    ],
)
def test_a_daemon_that_listens_everywhere_is_found_on_this_machine(host: str, url: str) -> None:
    assert Settings(listen_host=host).url == url


@pytest.mark.parametrize(("given", "found"), [("", None), (None, None), ("b:9092", "b:9092")])
def test_an_empty_broker_is_none(given: str | None, found: str | None) -> None:
    """A variable wins over adaptd.toml, and has no other way to say none."""
    assert Settings(kafka_bootstrap=given).kafka_bootstrap == found


@pytest.mark.parametrize(
    ("asked", "url", "gpu", "gives_way"),
    [
        (None, "http://127.0.0.1:8000", False, True),
        (None, "http://localhost:8000", False, True),
        (None, "http://127.0.0.1:8000", True, False),
        (None, "http://10.0.0.1:8000", False, False),
        (None, "http://10.0.0.1:8000", True, False),
        (True, "http://10.0.0.1:8000", True, True),
        (False, "http://127.0.0.1:8000", False, False),
    ],
)
def test_the_trainer_gives_way_where_a_cpu_of_this_machine_serves(
    *, asked: bool | None, url: str, gpu: bool, gives_way: bool
) -> None:
    settings = Settings(trainer_yields=asked, upstream=UpstreamSettings(url=url))

    assert settings.trainer_gives_way(gpu=gpu) is gives_way
