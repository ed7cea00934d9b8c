"""The running daemon, asked over HTTP."""

import os
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from adaptd.daemon.commands.errors import NoDaemonError
from adaptd.daemon.settings import Settings, load_settings
from adaptd.daemon.wire.errors import AdaptdError, HaltError, RefusedError
from adaptd.daemon.wire.files import read_regular

_LIMIT_S = 30.0
_WORK_LIMIT_S = 300.0  # of a request that brings work
_PATIENCE_S = 600.0  # with a daemon that asks to come again
_LONGEST_WAIT_S = 30.0
_NO_DAEMON = "Start it with `adaptd run`, or point ADAPTD_URL at one"


class DaemonClient:
    """One daemon's API. Errors are AdaptdErrors with the daemon's own words.

    Raises (every method):
        NoDaemonError: nobody answers at the address.
        RefusedError: the daemon refused; HaltError where it is halted.
    """

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str, **parameters: Any) -> Any:
        given = {name: value for name, value in parameters.items() if value is not None}
        return self._send_request("GET", path, params=given)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._send_request("POST", path, json=body or {})

    def delete(self, path: str) -> Any:
        return self._send_request("DELETE", path)

    def send(self, path: str, body: bytes, *, waiting: Callable[[str], None]) -> Any:
        """POST lines as they are. Where it asks to come again it does, for minutes.

        `waiting` is told why, once for each reason.
        """
        until_s = time.monotonic() + _PATIENCE_S
        told = ""
        while True:
            response = self._make_request("POST", path, limit_s=_WORK_LIMIT_S, content=body)
            wait_s = _come_again_s(response)
            if wait_s is None or time.monotonic() + wait_s > until_s:
                return self._read_answer(response)
            if (problem := self._read_refusal(response).problem) != told:
                waiting(told := problem)
            time.sleep(wait_s)

    def _send_request(self, method: str, path: str, **parts: Any) -> Any:
        return self._read_answer(self._make_request(method, path, limit_s=_LIMIT_S, **parts))

    def _make_request(
        self, method: str, path: str, *, limit_s: float, **parts: Any
    ) -> httpx.Response:
        try:
            return httpx.request(
                method,
                f"{self.url}{path}",
                headers=self._headers,
                timeout=httpx.Timeout(limit_s, connect=_LIMIT_S),
                trust_env=False,
                **parts,
            )
        except httpx.ReadTimeout as error:
            problem = f"the daemon was reached and gave no answer within {limit_s:.0f} s"
            raise NoDaemonError(self.url, problem, "Look at its log, and repeat this") from error
        except httpx.TransportError as error:
            problem = f"no daemon answers ({type(error).__name__})"
            raise NoDaemonError(self.url, problem, _NO_DAEMON) from error
        except httpx.InvalidURL as error:
            raise NoDaemonError(self.url, f"this is no address ({error})", _NO_DAEMON) from error
        except ValueError as error:
            problem = "the token has letters that no token has"
            raise NoDaemonError(self.url, problem, "Look at ADAPTD_TOKEN") from error

    def _read_answer(self, response: httpx.Response) -> Any:
        if not response.is_success:
            raise self._read_refusal(response)
        try:
            return response.json()
        except ValueError as error:
            problem = "something that is not adaptd answers"
            raise NoDaemonError(self.url, problem, _NO_DAEMON) from error

    def _read_refusal(self, response: httpx.Response) -> AdaptdError:
        try:
            told = response.json()["error"]
            words = (told["where"], told["problem"], told["remedy"])
        except (ValueError, KeyError, TypeError):
            problem = f"something that is not adaptd answers ({response.status_code})"
            return NoDaemonError(self.url, problem, _NO_DAEMON)
        kind = HaltError if told.get("kind") == "halted" else RefusedError
        return kind(*words)


def _come_again_s(response: httpx.Response) -> float | None:
    """Seconds to wait where the daemon is behind; None: the answer is final."""
    asked = response.headers.get("Retry-After", "")
    if response.status_code != HTTPStatus.TOO_MANY_REQUESTS or not asked.isdecimal():
        return None
    return min(max(float(asked), 1.0), _LONGEST_WAIT_S)


def connect() -> DaemonClient:
    """This installation's daemon; ADAPTD_URL and ADAPTD_TOKEN choose another.

    Raises:
        SettingsError: a setting is wrong.
    """
    settings = load_settings()
    return DaemonClient(daemon_url(settings), find_token(settings.control_token_path))


def daemon_url(settings: Settings) -> str:
    return os.environ.get("ADAPTD_URL") or settings.url


def find_token(control_token_path: Path) -> str | None:
    """ADAPTD_TOKEN, else the local operator's control token; None where neither can be read."""
    given = os.environ.get("ADAPTD_TOKEN")
    if given:
        return given
    try:
        return read_regular(control_token_path).decode().strip() or None
    except (OSError, UnicodeDecodeError):
        return None
