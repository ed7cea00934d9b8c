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
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from adaptd.daemon.demo.broker import KafkaNode, free_port
from adaptd.daemon.demo.children import DIE_WITH_PARENT, kill_group, run_to_end
from adaptd.daemon.demo.jars import fetch_jars, find_java
from adaptd.daemon.domain.bases import DIGEST_FILE
from adaptd.daemon.wire.errors import AdaptdError
from adaptd.serving.host.server_process import ServerRecord, end_server, read_record

BASE = Path("var/bases/smollm2-135m")
JARS = Path("var/kafka/jars")
ALIAS = "support"
_MARK = "made-by-adaptd-demo"
_POLL_S = 0.1
_GRACE_S = 5.0
_DAEMON_GRACE_S = 40.0  # it ends itself by force after 30


class DemoError(AdaptdError):
    """The demo cannot go on."""


class DemoWorld:
    """Owns every process it starts and ends them by their ids.

    What blocks must be called from the main thread: the broker ends with the thread it was started
    on, and only there a signal interrupts the wait.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.policy_path = home / "policies" / f"{ALIAS}.yaml"
        self.daemon_log = home / "daemon.log"
        self.engine_log = home / "logs" / "vllm.log"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.gateway_url = f"http://127.0.0.1:{free_port()}"
        self.broker: KafkaNode | None = None
        self.kills = 0
        self._daemon: subprocess.Popen[bytes] | None = None
        self._api: httpx.AsyncClient | None = None

    def make_base(self, say: Callable[[str], None]) -> None:
        """Empty the demo's folder and make the base model where it is not there. Blocks.

        Raises:
            DemoError: the folder is not a demo's, or the base model cannot be made.
        """
        self._empty_home()
        shutil.copytree("policies", self.home / "policies")
        if (BASE / DIGEST_FILE).exists():
            return
        say("adaptd demo: making the base model (once, about 40 s)")
        command = [sys.executable, "-m", "adaptd.daemon.training.worker.base_model", str(BASE)]
        log = self.home / "logs" / "base-model.log"
        if (code := run_to_end(command, what="base model", log=log)) != 0:
            raise DemoError("base model", f"it was not made (exit code {code})", f"See {log}")

    def start_broker(self, tell: Callable[[str], None]) -> None:
        """Start the broker, or `tell` why the demo goes on without one. Blocks."""
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
        with self.daemon_log.open("ab") as log:
            self._daemon = subprocess.Popen(
                [*DIE_WITH_PARENT, sys.executable, "-m", "adaptd.daemon.cli", "run"],
                env=self._child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on
            )

    @property
    def daemon_pid(self) -> int | None:
        return self._daemon.pid if self._daemon is not None else None

    def daemon_died(self) -> bool:
        return self._daemon is not None and self._daemon.poll() is not None

    def engine(self) -> ServerRecord | None:
        """The vLLM that the daemon started last."""
        return read_record(self.home / "vllm.json")

    async def kill_daemon(self) -> None:
        """SIGKILL: no goodbye, no clean-up."""
        assert self._daemon is not None
        self._daemon.kill()
        await asyncio.to_thread(self._daemon.wait)
        self.kills += 1

    def kill_process(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.kills += 1

    async def command(self, *words: str) -> str:
        """Run an `adaptd` command as an operator would and return what it printed.

        Raises:
            DemoError: it was refused.
        """
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "adaptd.daemon.cli",
            *words,
            env=self._child_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await child.communicate()  # its requests to the daemon have limits
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode != 0:
            said = err.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise DemoError("adaptd " + " ".join(words), said[-1], f"See {self.daemon_log}")
        return out.decode()

    async def get(self, path: str) -> Any:
        """A GET on the daemon's API; None while it is away."""
        try:
            response = await self._make_client().get(path)
        except httpx.TransportError:
            return None
        if response.is_server_error:
            return None
        if response.is_error:
            problem = f"{path} was answered {response.status_code}"
            raise DemoError("daemon", problem, f"See {self.daemon_log}")
        return response.json()

    async def close(self) -> None:
        """Let go of the connection to the daemon."""
        if self._api is not None:
            await self._api.aclose()

    def end(self, *, in_a_hurry: Callable[[], bool]) -> None:
        """End everything: daemon, vLLM, broker. Blocks; safe to repeat.

        Each is asked first and killed where it takes too long: 40 s for the daemon, and 5 s for it
        `in_a_hurry` and for the others. Nothing is lost then: what was accepted is in the store.
        """
        self._end_daemon(in_a_hurry)
        if (record := self.engine()) is not None:
            end_server(record, grace_s=_GRACE_S)
        if self.broker is not None:
            self.broker.stop(limit_s=_GRACE_S)

    def kill(self) -> None:
        """SIGKILL to everything that runs, without waiting. Safe in a signal handler."""
        kill_group(self._daemon)
        if (record := self.engine()) is not None:
            end_server(record, grace_s=0)
        if self.broker is not None:
            self.broker.kill_at_once()

    def _end_daemon(self, in_a_hurry: Callable[[], bool]) -> None:
        if self._daemon is None or self._daemon.poll() is not None:
            return
        self._daemon.terminate()
        began = time.monotonic()
        while self._daemon.poll() is None:
            if time.monotonic() - began > (_GRACE_S if in_a_hurry() else _DAEMON_GRACE_S):
                kill_group(self._daemon)
            with suppress(subprocess.TimeoutExpired):
                self._daemon.wait(_POLL_S)

    def _empty_home(self) -> None:
        """Only a folder that a demo made, and not before what a killed one left has ended."""
        if self.home.exists() and any(self.home.iterdir()):
            if not (self.home / _MARK).exists():
                problem = "it is not empty and no demo made it"
                raise DemoError(str(self.home), problem, "Give --home another folder")
            if (record := self.engine()) is not None:
                end_server(record, grace_s=20)
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True, mode=0o700)
        (self.home / _MARK).write_text("adaptd demo empties this folder\n")

    def _make_client(self) -> httpx.AsyncClient:
        if self._api is None:
            token = (self.home / "control.token").read_text().strip()
            headers = {"Authorization": f"Bearer {token}"}
            self._api = httpx.AsyncClient(
                base_url=self.url, headers=headers, timeout=20, trust_env=False
            )
        return self._api

    def _child_environment(self) -> dict[str, str]:
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
