"""The running daemon, asked over HTTP."""

import os
from pathlib import Path
from typing import Any

import httpx

from daemon.commands.errors import NoDaemonError
from daemon.domain.errors import AdaptdError, HaltError, RefusedError
from daemon.settings import Settings, load_settings

_LIMIT_S = 30.0
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
        return self._ask("GET", path, params=given)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._ask("POST", path, json=body or {})

    def delete(self, path: str) -> Any:
        return self._ask("DELETE", path)

    def send(self, path: str, body: bytes) -> Any:
        """POST lines as they are."""
        return self._ask("POST", path, content=body)

    def _ask(self, method: str, path: str, **parts: Any) -> Any:
        try:
            response = httpx.request(
                method,
                f"{self.url}{path}",
                headers=self._headers,
                timeout=_LIMIT_S,
                trust_env=False,
                **parts,
            )
            if response.is_success:
                return response.json()
        except httpx.TransportError as error:
            problem = f"no daemon answers ({type(error).__name__})"
            raise NoDaemonError(self.url, problem, _NO_DAEMON) from error
        except httpx.InvalidURL as error:
            raise NoDaemonError(self.url, f"this is no address ({error})", _NO_DAEMON) from error
        except ValueError as error:
            problem = "something that is not adaptd answers"
            raise NoDaemonError(self.url, problem, _NO_DAEMON) from error
        raise self._refusal(response)

    def _refusal(self, response: httpx.Response) -> AdaptdError:
        try:
            told = response.json()["error"]
            words = (told["where"], told["problem"], told["remedy"])
        except (ValueError, KeyError, TypeError):
            problem = f"something that is not adaptd answers ({response.status_code})"
            return NoDaemonError(self.url, problem, _NO_DAEMON)
        kind = HaltError if told.get("kind") == "halted" else RefusedError
        return kind(*words)


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
        return control_token_path.read_text().strip() or None
    except OSError:
        return None
