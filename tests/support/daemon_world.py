"""The daemon's parts in memory, its API on a port, or the whole of it as a process."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from adaptd.daemon.demo.broker import free_port
from adaptd.daemon.settings import Settings, UpstreamSettings
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.system.http_server import HttpServer, open_socket
from adaptd.daemon.web.api import make_api
from adaptd.daemon.wire.tokens import create_token
from adaptd.daemon.wiring.installation import Keys
from adaptd.daemon.wiring.parts import Parts, build
from tests.support.waiting import until_blocking

T = TypeVar("T")
POLICY = """\
version: 1
model: support
base: tiny
select: {where: "tags['product'] = 'cards'", caps: {min_age: 0s}}
curate: {holdout: {at_least: 30}}
rollout: {guard: {maturity: 60s}}
"""


def settings_for(folder: Path, base: Path | None = None, **more: Any) -> Settings:
    """Settings of an installation of its own: no broker, and a vLLM that nobody starts."""
    policies = folder / "policies"
    policies.mkdir(parents=True, exist_ok=True)
    (policies / "support.yaml").write_text(POLICY)
    return Settings(
        home=folder / "home",
        policies_dir=policies,
        listen_port=free_port(),
        bases={"tiny": base} if base else {},
        upstream=UpstreamSettings(url=f"http://127.0.0.1:{free_port()}", manage=False),
        tick_s=0.1,
        stop_grace_s=10,
        **more,
    )


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """The same settings for a process, or for commands."""
    given = {
        "HOME": settings.home,
        "POLICIES_DIR": settings.policies_dir,
        "LISTEN_PORT": settings.listen_port,
        "BASES": json.dumps({name: str(path) for name, path in settings.bases.items()}),
        "UPSTREAM__URL": settings.upstream.url,
        "UPSTREAM__MANAGE": str(settings.upstream.manage).lower(),
        "TICK_S": settings.tick_s,
        "STOP_GRACE_S": settings.stop_grace_s,
    }
    return {f"ADAPTD_{name}": str(value) for name, value in given.items()} | more


def token_for(settings: Settings, *scopes: str, tenant: str = "desk") -> str:
    return create_token(settings.tokens_path, tenant=tenant, scopes=scopes)[0]


class ServedParts:
    """All parts over a store in memory, their API on a real port, in a thread with its own loop."""

    def __init__(self, settings: Settings) -> None:
        self._listening = open_socket("127.0.0.1", 0)  # a port that nobody else can get meanwhile
        port = self._listening.getsockname()[1]
        self.settings = settings.model_copy(update={"listen_port": port})
        self.database = Database.open(":memory:")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="daemon-api")
        self._stack = AsyncExitStack()
        self._serving: asyncio.Task[None] | None = None
        self.parts: Parts

    def __enter__(self) -> "ServedParts":
        self._thread.start()
        self.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self.database.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.listen_port}"

    @property
    def control_token(self) -> str:
        return self.settings.control_token_path.read_text().strip()

    def run(self, work: Awaitable[T]) -> T:
        """Await something on the parts' own loop."""

        async def awaited() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result(30)

    async def _start(self) -> None:
        self.parts = await build(
            self.settings, Keys.ensure(self.settings), self.database, self._stack
        )
        await self.parts.policies.start()
        server = HttpServer(make_api(self.parts.backend), self._listening)
        self._serving = asyncio.create_task(server.run())

    async def _stop(self) -> None:
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
        await self._stack.aclose()


class DaemonProcess:
    """`adaptd run`, killed or asked to end by its id."""

    def __init__(self, settings: Settings, log: Path, **more: str) -> None:
        self.settings = settings
        self.log = log
        self._env = os.environ | environment(settings, **more)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.listen_port}"

    @property
    def headers(self) -> Mapping[str, str]:
        token = self.settings.control_token_path.read_text().strip()
        return {"Authorization": f"Bearer {token}"}

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "adaptd.daemon.cli", "run"],
                env=self._env,
                stdout=log,
                stderr=log,
            )

    def wait_until_answers(self, *, within_s: float = 90) -> None:
        until_blocking(self.answers, within_s=within_s)

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.url}/healthz").is_success
        except httpx.TransportError:
            return False

    def status(self) -> dict[str, Any]:
        return httpx.get(f"{self.url}/v1/status", headers=self.headers).raise_for_status().json()

    def end(self, signal_number: int, *, within_s: float = 30) -> int:
        """Send a signal and say how it exited."""
        assert self.process is not None
        self.process.send_signal(signal_number)
        return self.process.wait(within_s)


@contextmanager
def running_daemon(settings: Settings, log: Path, **more: str) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(settings, log, **more)
    daemon.start()
    try:
        daemon.wait_until_answers()
        yield daemon
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait(10)


Started = Callable[[], DaemonProcess]
