"""The daemon's main function: opens store and port, has every part built, runs all in one group."""

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

_log = structlog.get_logger(__name__)


def serve(settings: Settings, *, stop_vllm: bool = False) -> None:
    """Run until SIGINT or SIGTERM. A halt ends the process with 70 and its reason in the store.

    Raises:
        SettingsError: a setting, a base or the port cannot be used.
        StoreError: the store cannot be opened; most likely another daemon holds it.
    """
    os.umask(0o077)  # only this user may read people's requests and answers
    tune_interpreter()
    asyncio.run(_open_and_run(settings, stop_vllm))


async def _open_and_run(settings: Settings, stop_vllm: bool) -> None:
    keys = Keys.ensure(settings)
    database = open_database(settings)
    with ForcedEnd(settings.stop_grace_s) as forced_end:
        try:
            with open_socket(settings.listen_host, settings.listen_port) as listening:
                async with AsyncExitStack() as stack:
                    parts = await build(settings, keys, database, stack)
                    parts.services["api"] = HttpServer(make_api(parts.backend), listening).run
                    await _run_services(parts, forced_end, address=settings.url)
                    if stop_vllm and parts.engine is not None:
                        await parts.engine.stop()
        finally:
            database.close()


async def _run_services(parts: Parts, forced_end: ForcedEnd, *, address: str) -> None:
    """Run all services until a signal comes, then cancel them."""
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
    try:
        await service
    except HaltError as error:
        # Leave at once: threads may hang, and all state is in the store.
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        os._exit(HALTED)
