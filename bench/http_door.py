"""The HTTP door: NDJSON of 100 events a request, over several connections, to a whole daemon."""

import http.client
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from adaptd.daemon.demo.broker import free_port
from adaptd.daemon.settings import Settings
from adaptd.daemon.wire.tokens import create_token
from bench.machine import peak_mb

CONNECTIONS = 64
_START_S = 60
_POLICY = "version: 1\nmodel: support\nbase: none\nselect: {where: 'true'}\n"


class HttpAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Latency is that of a request of 100 events: it is answered after the commit."""

    events_per_s: float
    cpu_s_per_million: float
    peak_rss_mb: float
    commit_p50_ms: float
    commit_p99_ms: float


def measure(home: Path, bodies: Sequence[bytes], *, events: int, python: Path) -> HttpAnswer:
    """Post every body once. `events`: how many there are in all of them."""
    settings = Settings(home=home / "daemon", policies_dir=home, listen_port=free_port())
    token, _ = create_token(settings.tokens_path, tenant="acme", scopes=("events",))
    daemon = _start(settings, python, home / "daemon.log")
    try:
        before_s = _cpu_s(daemon.pid)
        began_s = time.monotonic()
        took_s = _post_all(settings.listen_port, token, bodies)
        lasted_s = time.monotonic() - began_s
        cpu_s = _cpu_s(daemon.pid) - before_s
        peak_rss_mb = peak_mb(daemon.pid)
    finally:
        daemon.terminate()
        daemon.wait(30)
    p50_ms, p99_ms = (np.percentile(took_s, [50, 99]) * 1000).round(1).tolist()
    return HttpAnswer(
        events_per_s=events / lasted_s,
        cpu_s_per_million=cpu_s / events * 1e6,
        peak_rss_mb=peak_rss_mb,
        commit_p50_ms=p50_ms,
        commit_p99_ms=p99_ms,
    )


def _start(settings: Settings, python: Path, log: Path) -> subprocess.Popen[bytes]:
    given = {
        "HOME": settings.home,
        "POLICIES_DIR": settings.policies_dir,
        "LISTEN_PORT": settings.listen_port,
        "UPSTREAM__URL": f"http://127.0.0.1:{free_port()}",
        "UPSTREAM__MANAGE": "false",
    }
    environment = {f"ADAPTD_{name}": str(value) for name, value in given.items()}
    daemon = subprocess.Popen(
        [str(python), "-m", "adaptd.daemon.cli", "run"],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=log.open("wb"),
    )
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s and daemon.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", settings.listen_port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == http.client.OK:
                return daemon
        except OSError:
            time.sleep(0.2)
        finally:
            connection.close()
    daemon.kill()
    daemon.wait()
    raise RuntimeError(f"the daemon did not start; its words are in {log}")


def _post_all(port: int, token: str, bodies: Sequence[bytes]) -> list[float]:
    """Seconds each request took, over connections that each send one after the other."""
    took_s: list[float] = []
    problems: list[str] = []
    waiting = iter(bodies)
    turn = threading.Lock()

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-ndjson"}
        while True:
            with turn:
                body = next(waiting, None)
            if body is None:
                break
            began_s = time.monotonic()
            connection.request("POST", "/v1/events", body, headers)
            answer = connection.getresponse()
            told = answer.read()
            took_s.append(time.monotonic() - began_s)
            if answer.status != http.client.OK or told.count(b'"stored"') != body.count(b"\n"):
                problems.append(f"{answer.status}: {told[:200]!r}")
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise RuntimeError(problems[0])
    return took_s


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
