"""A real vLLM with the tiny base, LoRA and the gateway, as adaptd starts it."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from adaptd.daemon.demo.broker import free_port
from adaptd.daemon.wire.tokens import create_token, ensure_control_token
from adaptd.serving.gateway.settings import GatewaySettings, write_settings
from adaptd.serving.host.supervisor import EngineSupervisor
from adaptd.serving.host.vllm_client import VllmHost
from tests.support.engine_settings import make_engine_settings
from tests.support.tiny_model import FORMAT
from tests.support.waiting import LIMIT_S

START_S = 120.0  # of a quiet machine; it takes 35 s on two idle cores, minutes on two busy ones
T = TypeVar("T")


class TinyServer:
    """A vLLM and its files under `home`, laid out as the daemon's settings do.

    The gateway ships to `events_url`, where nobody listens unless a test does: it spools.
    """

    def __init__(self, home: Path, base_dir: Path) -> None:
        self.home = home
        self.base_dir = base_dir
        self.base_name = "tiny"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.events_url = f"http://127.0.0.1:{free_port()}/v1/events"
        self.tokens_path = home / "tokens.json"
        self.control_token = ensure_control_token(home / "control.token", self.tokens_path)
        self.client_token, _ = create_token(
            self.tokens_path, tenant="tests", scopes=("chat", "feedback")
        )
        self.settings = make_engine_settings(
            url=self.url,
            base_name=self.base_name,
            base_dir=base_dir,
            gateway_config=self._write_gateway(),
            dtype=FORMAT,
            start_limit_s=LIMIT_S,
        )

    def supervisor(self) -> EngineSupervisor:
        """A supervisor of this server; the next one adopts what this one leaves."""
        return EngineSupervisor(self.settings, home=self.home, control_token=self.control_token)

    def host(self) -> VllmHost:
        return VllmHost(self.url, control_token=self.control_token, limit_s=LIMIT_S)

    def start(self) -> None:
        """Return once it answers. Blocking."""

        async def ensure() -> None:
            async with self.supervisor() as supervisor:
                await supervisor.ensure()

        run_apart(ensure())

    def stop(self) -> None:
        """End it and all its processes. Blocking; safe to repeat."""

        async def end() -> None:
            async with self.supervisor() as supervisor:
                await supervisor.stop()

        run_apart(end())

    def _write_gateway(self) -> Path:
        path = self.home / "gateway.json"
        settings = GatewaySettings(
            gateway="tests",
            tokens_path=self.tokens_path,
            control_token_path=self.home / "control.token",
            secret_path=self.home / "secret.key",
            table_path=self.home / "gateway" / "table.json",
            spool_dir=self.home / "gateway" / "spool",
            events_url=self.events_url,
        )
        write_settings(path, settings)
        return path


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end without a loop of the tests."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
