"""The gateway as vLLM loads it: `--middleware adaptd.serving.middleware.Gateway`.

Pure ASGI, outermost, so it sees a request before anything of vLLM's does. An import starts
nothing; threads begin with the server's lifespan, or the first request where there is none.
"""

import asyncio
from contextlib import suppress

from adaptd.serving.gateway.asgi import App, DisconnectedError, Message, Receive, Scope, Send
from adaptd.serving.gateway.reload_adapters import AdapterReloader
from adaptd.serving.gateway.router import GatewayRouter
from adaptd.serving.gateway.settings import GatewaySettings, load_settings


class Gateway:
    """An OpenAI-compatible ASGI app with the gateway around it.

    Without `settings` the gateway reads ADAPTD_GATEWAY_CONFIG.
    """

    def __init__(self, app: App, settings: GatewaySettings | None = None) -> None:
        self._app = app
        self._settings = settings
        self._router: GatewayRouter | None = None
        self._starting = asyncio.Lock()
        self._reloading: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._follow_lifespan(scope, receive, send)
            return
        router = self._router or await self._start_once(scope)
        with suppress(DisconnectedError):
            await router.serve(scope, receive, send)

    async def _follow_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start once the server has, stop once it has: its last answers are captured too."""

        async def follow(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                try:
                    await self._start_once(scope)
                except Exception as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
            elif message["type"].startswith("lifespan.shutdown"):
                await self._stop_router()
            await send(message)

        try:
            await self._app(scope, receive, follow)
        finally:
            await self._stop_router()

    async def _start_once(self, scope: Scope) -> GatewayRouter:
        async with self._starting:
            if self._router is None:
                router = GatewayRouter(self._app, self._settings or load_settings())
                router.start()
                self._router = router
                reloader = AdapterReloader(self._app, router.book, scope=scope, log=router.log)
                self._reloading = asyncio.create_task(reloader.run())
            return self._router

    async def _stop_router(self) -> None:
        router, self._router = self._router, None
        if self._reloading is not None:
            self._reloading.cancel()
        if router is not None:
            await router.stop()
