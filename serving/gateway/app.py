"""The gateway as vLLM takes it: `--middleware adaptd.serving.middleware.Gateway`.

Pure ASGI, outermost, so it sees a request before anything of vLLM's does. Importing it starts
nothing; its threads begin with the server's lifespan, or the first request where there is none.
"""

import asyncio
from contextlib import suppress

from adaptd.serving.gateway.asgi import App, DisconnectedError, Message, Receive, Scope, Send
from adaptd.serving.gateway.reload_adapters import Restoring
from adaptd.serving.gateway.router import Station
from adaptd.serving.gateway.settings import GatewaySettings, load_settings


class Gateway:
    """Wraps an OpenAI-compatible ASGI app. Without `settings` it reads ADAPTD_GATEWAY_CONFIG."""

    def __init__(self, app: App, settings: GatewaySettings | None = None) -> None:
        self._app = app
        self._settings = settings
        self._station: Station | None = None
        self._starting = asyncio.Lock()
        self._restoring: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        station = self._station or await self._started(scope)
        with suppress(DisconnectedError):
            await station.serve(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start once the server has, stop once it has: its last answers are captured too."""

        async def watching(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                try:
                    await self._started(scope)
                except Exception as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
            elif message["type"].startswith("lifespan.shutdown"):
                await self._stop()
            await send(message)

        try:
            await self._app(scope, receive, watching)
        finally:
            await self._stop()

    async def _started(self, scope: Scope) -> Station:
        async with self._starting:
            if self._station is None:
                station = Station(self._app, self._settings or load_settings())
                station.start()
                self._station = station
                restoring = Restoring(self._app, station.book, scope=scope, log=station.log)
                self._restoring = asyncio.create_task(restoring.run())
            return self._station

    async def _stop(self) -> None:
        station, self._station = self._station, None
        if self._restoring is not None:
            self._restoring.cancel()
        if station is not None:
            await station.stop()
