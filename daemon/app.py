"""The composition root: opens the store and the port, builds every part, runs all in one group."""

import asyncio
import os
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import structlog

from adaptd import __version__
from adaptd.daemon.settings import Settings
from adaptd.daemon.system.http_server import HttpServer, open_socket
from adaptd.daemon.system.interpreter import tune_interpreter
from adaptd.daemon.system.supervision import ForcedEnd, stop_signals
from adaptd.daemon.web.api import make_api
from adaptd.daemon.wire.errors import HaltError
from adaptd.daemon.wiring.installation import Keys, open_database
from adaptd.daemon.wiring.parts import Parts, build

HALTED = 70

_log = structlog.get_logger("adaptd")


def serve(settings: Settings, *, stop_vllm: bool = False) -> None:
    """Run until SIGINT or SIGTERM. A halt ends the process with 70, its reason in the store.

    Raises:
        SettingsError: a setting, a base or the port cannot be used.
        StoreError: the store cannot be opened; another daemon holds it, most likely.
    """
    os.umask(0o077)  # what people asked and were answered is for this user's eyes only
    tune_interpreter()
    asyncio.run(_serve(settings, stop_vllm))


async def _serve(settings: Settings, stop_vllm: bool) -> None:
    keys = Keys.ensure(settings)
    database = open_database(settings)
    with ForcedEnd(settings.stop_grace_s) as forced_end:
        try:
            with open_socket(settings.listen_host, settings.listen_port) as listening:
                async with AsyncExitStack() as stack:
                    parts = await build(settings, keys, database, stack)
                    parts.services["api"] = HttpServer(make_api(parts.backend), listening).run
                    await _run(parts, forced_end, address=settings.url)
                    if stop_vllm and parts.engine is not None:
                        await parts.engine.stop()
        finally:
            database.close()


async def _run(parts: Parts, forced_end: ForcedEnd, *, address: str) -> None:
    """All services until a signal comes; then they put down their work."""
    await parts.policies.recall()
    stop = asyncio.Event()
    with stop_signals(stop):
        async with asyncio.TaskGroup() as group:
            keep = parts.supervisor.keep_running
            tasks = [
                group.create_task(_end_on_halt(keep(name, work)), name=name)
                for name, work in parts.services.items()
            ]
            _log.info("daemon_started", version=__version__, address=address)
            await stop.wait()
            _log.info("daemon_stopping")
            forced_end.begin()
            for task in tasks:
                task.cancel()


async def _end_on_halt(service: Coroutine[Any, Any, None]) -> None:
    """Leave at once on a halt: threads may hang, and all is in the store."""
    try:
        await service
    except HaltError as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        os._exit(HALTED)
