"""A daemon's address that leads nowhere is told in one line."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from adaptd.daemon.commands.client import DaemonClient
from adaptd.daemon.commands.errors import NoDaemonError
from adaptd.daemon.wire.errors import HaltError, RefusedError


class Door(ThreadingHTTPServer):
    """Gives the answers it is told to, in turn, and then says yes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, str]] = []
        self.bodies: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Door)
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        answers = self.server.answers
        status, kind = answers.pop(0) if answers else (200, "")
        error = {"kind": kind, "where": "door", "problem": f"{kind} just now", "remedy": "Wait"}
        body = json.dumps({"error": error} if kind else {"done": True}).encode()
        self.send_response(status)
        if status in (429, 503):
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def door() -> Iterator[Door]:
    with Door() as door:
        threading.Thread(target=door.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield door
        door.shutdown()


def test_lines_are_sent_again_where_the_daemon_asks_for_it(door: Door) -> None:
    door.answers = [(429, "busy"), (429, "busy")]
    told: list[str] = []

    answer = DaemonClient(door.url, token=None).send("/v1/x", b"a line", waiting=told.append)

    assert answer == {"done": True}
    assert door.bodies == [b"a line"] * 3
    assert told == ["busy just now"]


@pytest.mark.parametrize(
    ("status", "kind", "error"), [(503, "halted", HaltError), (503, "store", RefusedError)]
)
def test_what_waiting_does_not_mend_is_told_at_once(
    door: Door, status: int, kind: str, error: type[Exception]
) -> None:
    door.answers = [(status, kind)]

    with pytest.raises(error, match=f"{kind} just now"):
        DaemonClient(door.url, token=None).send("/v1/x", b"a line", waiting=pytest.fail)
    assert len(door.bodies) == 1


def test_a_token_that_cannot_be_one_is_told_in_one_line(door: Door) -> None:
    with pytest.raises(NoDaemonError, match="the token has letters that no token has"):
        DaemonClient(door.url, token="caf\u00e9").get("/v1/status")


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:1", "gopher://somewhere"])
def test_an_address_that_leads_nowhere(url: str) -> None:
    with pytest.raises(NoDaemonError) as caught:
        DaemonClient(url, token=None).get("/v1/status")
    assert caught.value.where == url
