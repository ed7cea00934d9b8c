"""The number format that this machine serves and trains in, measured once and kept with it."""

import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog

from adaptd import IMPORT_ROOT
from adaptd.daemon.domain.calibration import Calibration
from adaptd.daemon.domain.machine import Machine, this_machine
from adaptd.daemon.domain.memory import needed_bytes
from adaptd.daemon.domain.ports import AdapterHost
from adaptd.daemon.wire.errors import HostError, SettingsError
from adaptd.daemon.wire.files import read_regular, replace_file
from adaptd.daemon.wire.texts import NOT_DECODED

FILE = "calibration.json"
AUTO = "auto"
_LIMIT_S = 300.0  # importing torch on one busy core took 40 s
_WORTH = 1.2  # a format other than the base's own must be so much faster: less is noise
# Each of these variables changes the formats that the same processor is fast in.
_MASKS = (
    "ATEN_CPU_CAPABILITY",
    "CUDA_VISIBLE_DEVICES",
    "DNNL_MAX_CPU_ISA",
    "HIP_VISIBLE_DEVICES",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
)
_TORCH = "import importlib.metadata as m; print(m.version('torch'))"
_HOST_LIMIT_S = 10.0

_log = structlog.get_logger(__name__)
_measuring = threading.Lock()


class Calibrator:
    """This machine's calibration, measured where none holds. Blocking, thread-safe.

    `path` is the file that keeps it. `python` is the interpreter that serves, None for this one;
    `on_cpu` is true where its vLLM computes on the CPU.
    """

    def __init__(
        self, base_dir: Path, path: Path, *, python: Path | None = None, on_cpu: bool = True
    ) -> None:
        self._base_dir = base_dir
        self._path = path
        self._python = python or Path(sys.executable)
        self._on_cpu = on_cpu

    def known(self) -> Calibration | None:
        """The kept calibration, if it is of this machine, interpreter and base."""
        try:
            found = msgspec.json.decode(read_regular(self._path), type=Calibration)
            is_ours = found.fingerprint == self._compute_fingerprint(this_machine())
            return found if is_ours else None
        except (OSError, *NOT_DECODED):
            return None

    def ensure(self) -> Calibration:
        """The kept calibration, else a new one: a few seconds, a minute on a busy core.

        Where nothing can be measured, the answer is the base's own format and nothing is kept.

        Raises:
            OSError: the base's config.json cannot be read, or the answer cannot be kept.
        """
        with _measuring:
            if (found := self.known()) is not None:
                return found
            calibration = self.measure()
            if calibration.fingerprint:
                content = msgspec.json.format(msgspec.json.encode(calibration))
                replace_file(self._path, content)
            return calibration

    def measure(self) -> Calibration:
        """A new calibration, not kept. Its fingerprint is empty where nothing could be measured.

        Raises:
            OSError: the base's config.json cannot be read.
        """
        machine, began = this_machine(), time.monotonic()
        own, weights = own_format(self._base_dir), weights_bytes(self._base_dir)
        found = self._ask_child()
        problem = found.get("problem")
        fits = needed_bytes(weights, "float32") <= machine.memory_bytes
        dtype, reason = (own, problem) if problem else choose_format(own, found, float32_fits=fits)
        calibration = Calibration(
            fingerprint="" if problem else self._compute_fingerprint(machine),
            machine=machine,
            torch=_torch_version(self._python),
            dtype=dtype,
            reason=reason,
            speeds=found.get("speeds", {}),
            took_s=round(time.monotonic() - began, 1),
            measured_at=datetime.now(UTC),
        )
        _log.info("machine_calibrated", dtype=dtype, reason=reason, speeds=calibration.speeds)
        return calibration

    def _ask_child(self) -> dict[str, Any]:
        """The child's measurements, or under `problem` the reason in words that there are none."""
        device = "cpu" if self._on_cpu else "gpu"
        line = [str(self._python), "-m", "adaptd.daemon.training.worker.calibrate", device]
        try:
            done = subprocess.run(
                [*line, str(self._base_dir)],
                capture_output=True,
                text=True,
                timeout=_LIMIT_S,
                check=False,
                env=_child_environment(self._python),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return {"problem": f"{self._python} could not measure ({error})"}
        try:
            return json.loads(done.stdout)
        except ValueError:
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            return {"problem": f"{self._python} could not measure ({said[:200]})"}

    def _compute_fingerprint(self, machine: Machine) -> str:
        facts = {
            "machine": msgspec.to_builtins(machine),
            "on_cpu": self._on_cpu,
            "masks": {name: os.environ.get(name, "") for name in _MASKS},
            "torch": _torch_version(self._python),
            "base": read_regular(self._base_dir / "config.json").decode(errors="replace"),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class ServedFormat:
    """The served number format, which training and evaluation follow."""

    def __init__(
        self,
        host: AdapterHost,
        *,
        started: Callable[[], str | None] = lambda: None,
        planned: Callable[[], str],
    ) -> None:
        """`started` returns the format of the daemon's own running server, `planned` of its next.

        Both may block. `started` is for a host that does not answer or does not name its format,
        `planned` for the case that no server runs.
        """
        self._host = host
        self._started = started
        self._planned = planned

    async def __call__(self) -> str:
        said = None
        with contextlib.suppress(HostError, TimeoutError):
            async with asyncio.timeout(_HOST_LIMIT_S):
                said = (await self._host.describe()).dtype
        said = said or await asyncio.to_thread(self._started)
        return said or await asyncio.to_thread(self._planned)


def planned_format(setting: str, base_dir: Path, calibrator: Calibrator | None) -> str:
    """The format that a server is started with. Blocking: it may measure the machine.

    `calibrator` is None for a server that the operator starts, which follows the base's format.
    """
    if setting != AUTO:
        return setting
    return calibrator.ensure().dtype if calibrator else own_format(base_dir)


def choose_format(own: str, found: Mapping[str, Any], *, float32_fits: bool) -> tuple[str, str]:
    """The format to serve and train in, and the reason. Pure.

    `own` is the base's 16-bit format, `found` the answer of the measurement. On a CPU another one
    wins where it is 1.2 × faster: bfloat16, or float32 where its weights fit in memory. float16 is
    never chosen for a base of another format: its range is too small for some of them.
    """
    if "native_bf16" in found:
        if found["native_bf16"] or own == "float16":
            return own, f"{found['device']} computes in {own}"
        return "float32", f"{found['device']} has no native bfloat16"
    speeds: Mapping[str, float] = found["speeds"]
    others = [name for name in ("bfloat16", "float32") if name != own]
    fastest = max(others, key=speeds.__getitem__)
    ratio = speeds[fastest] / speeds[own]
    if ratio < _WORTH:
        return own, f"no other format is {_WORTH} x faster (the fastest: {fastest}, {ratio:.1f} x)"
    if fastest == "float32" and not float32_fits:
        return own, f"float32 would be {ratio:.1f} x faster, and its weights do not fit in memory"
    return fastest, f"{ratio:.1f} x faster than {own}"


def own_format(base_dir: Path) -> str:
    """The 16-bit format of a base: its own, or bfloat16 where its own has another size.

    Raises:
        OSError: config.json cannot be read.
        SettingsError: it is not what a model's is.
    """
    own = _stored_format(_read_config(base_dir))
    return own if own in ("bfloat16", "float16") else "bfloat16"


def _read_config(base_dir: Path) -> Mapping[str, Any]:
    path = base_dir / "config.json"
    try:
        return dict(json.loads(read_regular(path)))  # msgspec refuses the NaN that some have
    except (TypeError, ValueError) as error:
        remedy = "Give the directory of a model"
        raise SettingsError(str(path), "it is not a JSON object", remedy) from error


def _stored_format(config: Mapping[str, Any]) -> str | None:
    text = config.get("text_config") or {}
    found = [part.get(name) for part in (config, text) for name in ("dtype", "torch_dtype")]
    return next(filter(None, found), None)


def weights_bytes(base_dir: Path) -> int:
    """Size of a base's weights in 16 bits, for any stored format."""
    files = [*base_dir.glob("*.safetensors"), *base_dir.glob("*.bin")]
    stored = sum(path.stat().st_size for path in files)
    kept_in = _stored_format(_read_config(base_dir))
    return stored // 2 if kept_in == "float32" else stored


def _torch_version(python: Path) -> str:
    # Empty for an interpreter that cannot tell: it measures nothing either.
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        line = [str(python), "-c", _TORCH]
        done = subprocess.run(line, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
        return done.stdout.strip()
    return ""


def _child_environment(python: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ADAPTD_")}
    # Another interpreter has adaptd installed; this one may run from a source tree.
    if str(python) == sys.executable:
        kept["PYTHONPATH"] = os.pathsep.join(
            filter(None, (str(IMPORT_ROOT), kept.get("PYTHONPATH")))
        )
    return kept
