"""One real Kafka broker of our own: KRaft, a single node, on free ports of 127.0.0.1.

For the demo and the tests. `deploy/kafka/broker.py` runs it from the command line. Production
gives its own broker by setting.
"""

import contextlib
import signal
import socket
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from adaptd.daemon.demo.children import DIE_WITH_PARENT, STILL_S, kill_group, run_to_end
from adaptd.daemon.demo.jars import fetch_jars, find_java
from adaptd.daemon.domain.patience import Patience
from adaptd.daemon.domain.processes import group_members, work_of
from adaptd.daemon.wire.errors import AdaptdError

_STOP_LIMIT_S = 15
_POLL_S = 0.1
_LOOKS_EVERY = 10  # polls
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}/log
auto.create.topics.enable=false
num.partitions=3
num.network.threads=2
num.io.threads=2
offsets.topic.replication.factor=1
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=3
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
"""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class KafkaNode:
    """A broker with its data in one folder. Ports and data stay the same over kill and restart.

    Blocking throughout; from a coroutine call it in a thread that lives as long as the broker may
    (the kernel ends the broker with the thread that started it).
    """

    def __init__(
        self,
        data: Path,
        *,
        jars: Path,
        heap_mib: int = 512,
        properties: str = "",
        format_options: Sequence[str] = (),
    ) -> None:
        """`properties` win over ours; `{port}`, `{controller}`, `{data}` in them are filled in."""
        self.data = data.resolve()
        self.jars = jars
        self.port = free_port()
        self._controller_port = free_port()
        self._heap_mib = heap_mib
        self._properties = _PROPERTIES + properties
        self._format_options = format_options
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def log_path(self) -> Path:
        return self.data / "broker.log"

    def start(self, *, still_s: float = STILL_S) -> None:
        """Fetch jars and format storage where not done yet, start, and wait until ready.

        Raises:
            AdaptdError: Java or Maven is missing, or the broker ended, or it was not ready and
                nothing of it moved for `still_s`.
        """
        java = find_java()
        classpath = f"{fetch_jars(self.jars).resolve()}/*"
        if not (self.data / "formatted").exists():
            self._format_storage(java, classpath)
        self._spawn_broker(java, classpath)
        try:
            self._wait_ready(still_s)
        except BaseException:
            self.kill()
            raise

    def stop(self, *, limit_s: float = _STOP_LIMIT_S) -> None:
        """Ask it to end, and kill it where it has not after `limit_s`. Safe to repeat."""
        self._end_process(signal.SIGTERM, limit_s)

    def kill(self) -> None:
        """SIGKILL, as a crash would. Safe to repeat."""
        self._end_process(signal.SIGKILL, _STOP_LIMIT_S)

    def kill_at_once(self) -> None:
        """SIGKILL without waiting, for signal handlers."""
        kill_group(self._process)

    def restart(self) -> None:
        """End it if it still runs, and start it on the same ports and data."""
        self.stop()
        self.start()

    def _format_storage(self, java: str, classpath: str) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        properties = self.data / "server.properties"
        properties.write_text(
            self._properties.format(
                port=self.port, controller=self._controller_port, data=self.data
            )
        )
        command = [java, "-XX:TieredStopAtLevel=1", "-cp", classpath, "kafka.tools.StorageTool"]
        command += ["format", "--cluster-id", cluster_id(uuid.uuid4()), "--config", str(properties)]
        command += self._format_options
        log = self.data / "format.log"
        code = run_to_end(command, what="kafka", log=log)
        if code != 0:
            problem = f"Kafka could not format it (exit code {code})"
            raise AdaptdError(str(self.data), problem, f"Its output: {log}")
        (self.data / "formatted").touch()

    def _spawn_broker(self, java: str, classpath: str) -> None:
        command = [java, f"-Xmx{self._heap_mib}m", "-XX:+UseSerialGC"]
        command += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classpath]
        command += ["kafka.Kafka", str(self.data / "server.properties")]
        self._log = self.log_path.open("ab")
        self._process = subprocess.Popen(
            [*DIE_WITH_PARENT, *command],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on
        )

    def _wait_ready(self, still_s: float) -> None:
        assert self._process is not None
        patience = Patience(still_s)
        looks = 0
        while not self._does_answer():
            if self._process.poll() is not None:
                problem = f"the broker ended with code {self._process.returncode}"
                raise AdaptdError("kafka", problem, f"Its log: {self.log_path}")
            if looks % _LOOKS_EVERY == 0:
                work = work_of(group_members(self._process.pid))
                patience.saw(log=self.log_path.stat().st_size, work=work and work.units(still_s))
            if patience.is_over:
                problem = f"the broker does not get ready: {patience.words}"
                raise AdaptdError("kafka", problem, f"Its log: {self.log_path}")
            looks += 1
            time.sleep(_POLL_S)

    def _does_answer(self) -> bool:
        """True once the broker takes connections: it opens its port only after it has recovered."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def _end_process(self, how: signal.Signals, limit_s: float) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(limit_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None


def cluster_id(random: uuid.UUID) -> str:
    """A UUID as Kafka writes it, never with the leading dash that its tool takes for an option."""
    first, *rest = random.bytes
    return urlsafe_b64encode(bytes([first & 0x7F, *rest])).decode().rstrip("=")
