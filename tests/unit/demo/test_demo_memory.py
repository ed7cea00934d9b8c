"""Memory that the demo asks for: in the number format it serves, and as the pages say."""

from datetime import UTC, datetime

import pytest

from adaptd.daemon.demo.main import pace_of
from adaptd.daemon.demo.world import DemoError
from adaptd.daemon.domain.calibration import Calibration
from adaptd.daemon.domain.machine import Machine
from adaptd.daemon.domain.memory import DEMO_WEIGHTS_BYTES, gib, needed_bytes
from tests.support.broker import ROOT

GIB = 2**30


def calibration(dtype: str) -> Calibration:
    return Calibration(
        fingerprint="f",
        machine=Machine(processor="p", instruction_sets=(), cores=2, memory_bytes=8 * GIB),
        torch="2",
        dtype=dtype,
        reason="",
        speeds={"float32": 36.0, "bfloat16": 0.9},
        took_s=3,
        measured_at=datetime.now(UTC),
    )


def test_memory_that_suffices_for_16_bits_only_is_refused_where_float32_is_chosen() -> None:
    free = {"limit": 8 * GIB, "available": 7 * GIB}

    with pytest.raises(DemoError, match=r"7\.4 GiB of memory are needed, and 7\.0 GiB are free"):
        pace_of(calibration("float32"), "auto", **free)

    assert pace_of(calibration("bfloat16"), "auto", **free).dtype == "bfloat16"
    assert pace_of(calibration("float32"), "bfloat16", **free).dtype == "bfloat16"


@pytest.mark.parametrize("page", ["README.md", "docs/machines.md"])
def test_the_pages_say_how_much_it_asks_for(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    for dtype in ("float32", "bfloat16"):
        assert gib(needed_bytes(DEMO_WEIGHTS_BYTES, dtype)) in text
