"""Speed of a machine in each number format, measured with a base model's own shapes."""

from datetime import datetime

import msgspec

from adaptd.daemon.domain.machine import Machine


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement on one machine. It holds as long as `fingerprint` does.

    `speeds` are GFLOP/s of one core by number format, over the matrix products of one training step
    and of decoding with a few customers. On a GPU nothing is timed and `speeds` is empty.
    `dtype` is the format to serve and train in, `reason` says why in words. `took_s` is the time
    that the measurement took.
    """

    fingerprint: str
    machine: Machine
    torch: str
    dtype: str
    reason: str
    speeds: dict[str, float]
    took_s: float
    measured_at: datetime

    def slower(self, dtype: str) -> float | None:
        """Return the factor from a format to the fastest one; None where it was not timed."""
        if dtype not in self.speeds:
            return None
        return max(self.speeds.values()) / self.speeds[dtype]
