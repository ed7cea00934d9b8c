"""Forecast of the demo's duration: stages scaled by the machine, corrected by measured times."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from adaptd.daemon.domain.calibration import Calibration

# Of one core, as calibrated. The times below are of two such cores (AMD EPYC with AVX2, float32):
# 12 s a training step of 16 rows beside vLLM, 2.9 requests a second. With AVX-512 a step takes
# 3.4 s: the demo ends sooner there than forecast, and the time left follows what was measured.
REFERENCE_GFLOPS = 36.0
_REFERENCE_CORES = 2
# More cores count for nothing here; nothing was timed on them. Two thirds of the computing is
# decoding, which gains little beyond 4 with 135 M parameters. Training gains up to about 8, so the
# demo ends sooner there than forecast, not later.
_MOST_CORES = 4
_GPU_SLOWNESS = 0.3  # nothing is timed there; set-up and timers are most of it then
_TRUSTED_S = 60.0  # so much computing as forecast weighs as much as so much computing measured
_LEAST_BOUND_S = 3600.0
_BOUND = 5.0  # times the forecast, but not more than so much later:
_LATEST_S = 4 * 3600.0  # beside other programs calibrations came out 8 times too low


@dataclass(frozen=True)
class Part:
    """A stretch of one kind. `fixed_s` are timers, people's delays and waits for disks.

    `computing_s` is what it takes beside that on the reference machine. Most of a process start is
    computing: 45 of vLLM's 60 s on two AVX2 cores are imports on one of them.
    """

    key: str
    fixed_s: float
    computing_s: float


@dataclass(frozen=True)
class Stage:
    """One line of the story, in parts that follow each other."""

    key: str
    title: str
    parts: tuple[Part, ...]


def _make_stage(key: str, title: str, **parts: tuple[float, float]) -> Stage:
    made = (Part(f"{key}.{name}", fixed, computing) for name, (fixed, computing) in parts.items())
    return Stage(key, title, tuple(made))


STAGES = (
    _make_stage("setup", "set up: broker, daemon, vLLM", start=(30, 108)),
    _make_stage("before", "measure the base model on fresh messages", ask=(0, 33)),
    _make_stage("ask", "customers ask, agents correct; the daemon is killed once", ask=(5, 205)),
    _make_stage(
        "train",
        "train the first adapter; the trainer is killed once",
        wait=(20, 0),
        train=(10, 480),
        evaluate=(5, 227),
    ),
    _make_stage("canary", "canary of the first adapter, then live", roll_out=(45, 200)),
    _make_stage(
        "poison",
        "poisoned corrections: trained, then stopped by the gate",
        ask=(25, 107),
        wait=(10, 0),
        train=(6, 414),
        evaluate=(5, 132),
    ),
    _make_stage(
        "forced",
        "an operator forces the bad adapter; the guard takes it back",
        roll_out=(40, 110),
    ),
    _make_stage(
        "again",
        "two new queues open: corrections, training, evaluation",
        ask=(25, 80),
        wait=(10, 0),
        train=(6, 414),
        evaluate=(5, 150),
        roll_out=(45, 200),
    ),
    _make_stage("after", "measure again, count every event", ask=(5, 55)),
)


def slowness(calibration: Calibration, dtype: str) -> float:
    """Ratio of this machine's computing time to the reference machine's, in one format."""
    if not (speed := calibration.speeds.get(dtype)):
        return _GPU_SLOWNESS
    cores = min(calibration.machine.cores, _MOST_CORES)
    return REFERENCE_GFLOPS / speed * _REFERENCE_CORES / cores


class Forecast:
    """Expected times. Its parts begin in order, and each ends as the next one begins."""

    def __init__(
        self,
        stages: Iterable[Stage] = STAGES,
        *,
        slowness: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parts = [part for stage in stages for part in stage.parts]
        self._slowness = slowness
        self._clock = clock
        self._at = -1
        self._began = clock()
        self._told: tuple[float, float] | None = None
        self._took_s = self._forecast_s = 0.0  # computing in the parts that have ended
        self.whole_s = self.left_s
        self.bound_s = max(_LEAST_BOUND_S, min(_BOUND * self.whole_s, self.whole_s + _LATEST_S))

    def begin(self, key: str) -> None:
        """A part begins; the one before it ends and says how fast this machine really is."""
        now = self._clock()
        if self._at >= 0:
            part = self._parts[self._at]
            if part.computing_s:
                self._took_s += max(0.0, now - self._began - part.fixed_s)
                self._forecast_s += part.computing_s * self._slowness
        self._at = [part.key for part in self._parts].index(key)
        self._began, self._told = now, None

    def expected_s(self, key: str) -> float:
        """Expected seconds of one part, from its beginning on."""
        return next(self._expected_s(part) for part in self._parts if part.key == key)

    def tell_left(self, left_s: float) -> None:
        """So long the part that runs still takes, as counted from what it has done."""
        self._told = (self._clock(), left_s)

    @property
    def pace(self) -> float:
        """Time that computing takes here over the time it was forecast to take."""
        return (_TRUSTED_S + self._took_s) / (_TRUSTED_S + self._forecast_s)

    @property
    def left_s(self) -> float:
        """Expected seconds until the end."""
        later = sum(self._expected_s(part) for part in self._parts[self._at + 1 :])
        return later + (self._left_of_part_s() if self._at >= 0 else 0.0)

    def _left_of_part_s(self) -> float:
        now = self._clock()
        if self._told is not None:
            told_at, left_s = self._told
            return max(0.0, left_s - (now - told_at))
        return max(0.0, self._expected_s(self._parts[self._at]) - (now - self._began))

    def _expected_s(self, part: Part) -> float:
        return part.fixed_s + part.computing_s * self._slowness * self.pace
