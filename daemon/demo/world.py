"""The demo's processes: broker, daemon and, through the daemon, vLLM and the trainer.

Everything lives under `var/demo` and is made anew for every run, except what is slow to make and
never changes (base model, broker jars).
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx

from daemon.demo.broker import DIE_WITH_PARENT, KafkaNode, free_port
from daemon.demo.jars import fetch_jars, find_java
from daemon.domain.errors import AdaptdError

BASE = Path("var/bases/smollm2-135m")
JARS = Path("var/kafka/jars")
ALIAS = "support"
_MARK = "made-by-adaptd-demo"


class DemoError(AdaptdError):
    """The demo cannot go on."""


class World:
    """Owns every process it starts and ends them by their ids."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.policy_path = home / "policies" / f"{ALIAS}.yaml"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.gateway_url = f"http://127.0.0.1:{free_port()}"
        self.broker: KafkaNode | None = None
        self.kills = 0
        self._daemon: subprocess.Popen[bytes] | None = None
        self._api: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._api is not None:
            await self._api.aclose()
        await asyncio.to_thread(self._end_everything)

    def prepare(self, say: Callable[[str], None], tell: Callable[[str], None]) -> None:
        """Empty the demo's folder, make what is cached, start the broker. Minutes the first time.

        `say` gets what is going on, `tell` what stays worth reading.

        Raises:
            DemoError: the folder is not a demo's, or the base model cannot be made.
        """
        self._empty_home()
        shutil.copytree("policies", self.home / "policies")
        say("base model (once, about 40 s)")
        command = [sys.executable, "-m", "daemon.training.worker.base_model", str(BASE)]
        made = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if made.returncode != 0:
            raise DemoError(
                "base model", made.stderr[-400:], "Run the command by hand: " + " ".join(command)
            )
        say("Kafka broker")
        self._start_broker(tell)

    def _empty_home(self) -> None:
        """Only a folder that a demo made, and not before what a killed one left has ended."""
        if self.home.exists() and any(self.home.iterdir()):
            if not (self.home / _MARK).exists():
                problem = "it is not empty and no demo made it"
                raise DemoError(str(self.home), problem, "Give --home another folder")
            self._end_engine()
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True, mode=0o700)
        (self.home / _MARK).write_text("adaptd demo empties this folder\n")

    def _start_broker(self, tell: Callable[[str], None]) -> None:
        """On the calling thread, which must outlive the broker."""
        try:
            find_java()
            fetch_jars(JARS)
        except AdaptdError as error:
            tell(f"{error.problem}: going on without a broker, events go through POST /v1/events")
            return
        self.broker = KafkaNode(self.home / "kafka", jars=JARS)
        self.broker.start()

    def start_daemon(self) -> None:
        """Start `adaptd run`; its output goes to daemon.log."""
        log = (self.home / "daemon.log").open("ab")
        self._daemon = subprocess.Popen(
            [*DIE_WITH_PARENT, sys.executable, "-m", "daemon.cli", "run"],
            env=self._environment(),
            stdout=log,
            stderr=log,
        )
        log.close()

    def kill_daemon(self) -> None:
        """SIGKILL: no goodbye, no clean-up."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait(timeout=10)
        self.kills += 1

    def kill_process(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.kills += 1

    async def stop_daemon(self) -> None:
        """SIGTERM and wait: what it holds is finished, the store is closed."""
        assert self._daemon is not None
        self._daemon.terminate()
        await asyncio.to_thread(self._daemon.wait, 60)

    def command(self, *words: str) -> str:
        """Run an `adaptd` command as an operator would and return what it printed.

        Raises:
            DemoError: it was refused.
        """
        done = subprocess.run(
            [sys.executable, "-m", "daemon.cli", *words],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise DemoError(
                "adaptd " + " ".join(words), done.stderr.strip()[-400:], "See daemon.log"
            )
        return done.stdout

    async def get(self, path: str) -> Any:
        """A GET on the daemon's API; None while it is away."""
        try:
            response = await self._client().get(path)
        except httpx.TransportError:
            return None
        if response.status_code >= 500:
            return None
        return response.raise_for_status().json()

    def engine_log_tail(self) -> str:
        """The last line vLLM wrote, for the start-up wait."""
        path = self.home / "logs" / "vllm.log"
        if not path.exists():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 400))
            lines = file.read().decode(errors="replace").splitlines()
        return lines[-1][:100] if lines else ""

    def daemon_died(self) -> bool:
        return self._daemon is not None and self._daemon.poll() is not None

    def _client(self) -> httpx.AsyncClient:
        if self._api is None:
            token = (self.home / "control.token").read_text().strip()
            headers = {"Authorization": f"Bearer {token}"}
            self._api = httpx.AsyncClient(
                base_url=self.url, headers=headers, timeout=10, trust_env=False
            )
        return self._api

    def _environment(self) -> dict[str, str]:
        settings = {
            "HOME": str(self.home),
            "POLICIES_DIR": str(self.home / "policies"),
            "LISTEN_PORT": self.url.rsplit(":", 1)[1],
            "BASES": f'{{"smollm2-135m": "{BASE.resolve()}"}}',
            "UPSTREAM__URL": self.gateway_url,
            "KAFKA_CREATE_TOPICS": "true",
            # Empty without a broker of our own: the operator's must not get the demo's events.
            "KAFKA_BOOTSTRAP": self.broker.bootstrap if self.broker is not None else "",
        }
        return os.environ | {f"ADAPTD_{name}": value for name, value in settings.items()}

    def _end_everything(self) -> None:
        if self._daemon is not None and self._daemon.poll() is None:
            self._daemon.terminate()
            try:
                self._daemon.wait(timeout=40)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
        self._end_engine()
        if self.broker is not None:
            self.broker.stop()

    def _end_engine(self) -> None:
        """vLLM outlives the daemon on purpose; the demo takes it along."""
        if not (self.home / "vllm.json").exists():
            return
        try:
            self.command("engine", "stop")
        except (DemoError, subprocess.TimeoutExpired) as error:
            sys.stderr.write(f"{error}\n")
