import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adaptd.serving.capture.disk import Disk
from adaptd.serving.capture.exchange import Exchange, RequestKind
from adaptd.serving.capture.recorder import InteractionRecorder
from adaptd.serving.capture.spool import Spool
from adaptd.serving.gateway.log import make_log
from adaptd.serving.gateway.settings import GatewaySettings
from tests.support.waiting import until_blocking


def a_capture(
    home: Path,
    spools: list[Spool],
    *,
    disk: Disk | None = None,
    on_spool: Callable[[Spool], None] | None = None,
    **changes: Any,
) -> InteractionRecorder:
    settings = GatewaySettings(
        gateway="g1",
        tokens_path=home,
        control_token_path=home,
        secret_path=home,
        table_path=home,
        spool_dir=home / "spool",
        **changes,
    )
    return InteractionRecorder(
        settings, on_spool=on_spool or spools.append, log=make_log("g1"), disk=disk
    )


def an_exchange(name: str, *, texts: bytes = b"") -> Exchange:
    exchange = Exchange(
        id=name, kind=RequestKind.CHAT, tenant="shop", gateway="g1", model="support"
    )
    exchange.status_code, exchange.complete = 200, True
    if texts:
        exchange.note_answer(b'{"choices": [{"text": "%b"}]}' % texts)
    return exchange


def events(home: Path) -> list[dict[str, Any]]:
    paths = sorted((home / "spool").glob("[0-9]*.ndjson"))
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


def test_what_is_recorded_is_on_disk_when_capture_has_closed(tmp_path: Path) -> None:
    capture = a_capture(tmp_path, [])
    for index in range(1000):
        capture.record(an_exchange(str(index)))
    capture.start()

    assert capture.close(10)

    assert [event["id"] for event in events(tmp_path)] == [str(index) for index in range(1000)]


def test_a_full_queue_drops_texts_first_and_rows_last(tmp_path: Path) -> None:
    capture = a_capture(tmp_path, [], queue_bytes=100, queue_rows=3)
    for name in "abcd":
        capture.record(an_exchange(name, texts=b"x" * 50))
    assert (capture.texts_dropped, capture.rows_lost, capture.waiting) == (2, 1, 3)
    capture.start()
    assert capture.close(10)

    found = events(tmp_path)
    assert [event["id"] for event in found] == ["a", "b", "c"]
    assert [event.get("texts", "kept") for event in found] == ["kept", "dropped", "dropped"]


def test_a_full_spool_takes_rows_without_texts(tmp_path: Path) -> None:
    spools: list[Spool] = []
    capture = a_capture(tmp_path, spools, spool_bytes=10)
    capture.start()
    capture.record(an_exchange("a", texts=b"x"))
    until_blocking(lambda: capture.waiting == 0, within_s=5)
    capture.record(an_exchange("b", texts=b"x"))
    assert capture.close(10)

    assert [event.get("texts", "kept") for event in events(tmp_path)] == ["kept", "dropped"]
    assert capture.texts_dropped == 1


def test_an_exchange_that_makes_no_event_is_counted_and_the_next_one_kept(tmp_path: Path) -> None:
    capture = a_capture(tmp_path, [])
    broken: Any = an_exchange("a")
    broken.arrived_at = object()
    capture.record(broken)
    capture.record(an_exchange("b"))
    capture.start()
    assert capture.close(10)

    assert [event["id"] for event in events(tmp_path)] == ["b"]
    assert capture.rows_lost == 1


def test_capture_waits_for_a_spool_it_cannot_use_yet(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file where the directory belongs")
    capture = a_capture(tmp_path, [])
    capture.start()
    capture.record(an_exchange("a"))
    (tmp_path / "spool").unlink()

    until_blocking(lambda: capture.waiting == 0, within_s=5)
    assert capture.close(10)
    assert [event["id"] for event in events(tmp_path)] == ["a"]
