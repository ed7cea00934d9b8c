"""uvicorn inside the daemon's own loop, which owns the signals, the socket and the end.

Stands alone, since it holds the daemon to uvicorn's inside.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from adaptd.daemon.wire.errors import SettingsError

_CLOSE_LIMIT_S = 3  # requests still being answered when the daemon is told to stop
_BACKLOG = 256


def open_socket(host: str, port: int) -> socket.socket:
    """Listen before anything else is started, so that a port in use costs nothing.

    Raises:
        SettingsError: the port is in use, or the host is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise SettingsError(
            f"{host}:{port}",
            f"the daemon cannot listen there ({error.strerror})",
            "Stop what uses the port, or set ADAPTD_LISTEN_HOST and ADAPTD_LISTEN_PORT",
        ) from error
    return listening


class HttpServer:
    """Serves one ASGI application on an open socket until cancelled."""

    def __init__(self, app: ASGIApp, listening: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_CLOSE_LIMIT_S,
        )
        self._server = _Server(config)
        self._socket = listening

    async def run(self) -> None:
        serving = asyncio.ensure_future(self._server.serve(sockets=[self._socket]))
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            self._server.should_exit = True
            await serving
            raise


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The daemon handles them."""
        yield
