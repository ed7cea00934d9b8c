"""The measurement itself, in a real child with torch."""

from pathlib import Path

import pytest

from adaptd.daemon.training.calibration import FILE, Calibrator


@pytest.fixture(scope="module")
def calibrator(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Calibrator:
    return Calibrator(tiny_base, tmp_path_factory.mktemp("home") / FILE)


def test_every_format_is_timed_and_the_answer_is_kept(calibrator: Calibrator) -> None:
    calibration = calibrator.ensure()

    assert calibration.speeds.keys() == {"bfloat16", "float16", "float32"}
    assert all(speed > 0 for speed in calibration.speeds.values())
    assert calibration.dtype in ("bfloat16", "float32")
    assert calibration.torch
    assert calibration.machine.cores >= 1
    assert calibrator.known() == calibration
    assert calibrator.ensure() == calibration


def test_a_processor_without_bf16_instructions_gets_float32(
    calibrator: Calibrator, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mask stands for such a processor: oneDNN and torch's own kernels use AVX2."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")

    calibration = Calibrator(tiny_base, tmp_path / FILE).ensure()

    masked = {"avx2"}.intersection(calibration.machine.instruction_sets)  # the masks are for x86
    assert not masked or calibration.dtype == "float32"
    assert not masked or (calibration.slower("bfloat16") or 0) > 1.5
