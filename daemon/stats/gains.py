"""Gains of a candidate over live, summed by cluster. Pure."""

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Gains(msgspec.Struct, frozen=True):
    """The candidate's gains over live, summed by cluster: above 0 is better.

    `sizes` counts the items of each cluster.
    """

    sums: Floats
    sizes: Floats

    @property
    def items(self) -> int:
        return int(self.sizes.sum())

    @property
    def clusters(self) -> int:
        return len(self.sizes)

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.sizes.sum()) if self.items else 0.0

    @property
    def is_single(self) -> bool:
        """True where no two items share a cluster."""
        return bool(np.all(self.sizes == 1))

    def mirrored(self) -> "Gains":
        return Gains(-self.sums, self.sizes)
