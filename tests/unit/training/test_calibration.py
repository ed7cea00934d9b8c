"""The number format that a machine serves and trains in."""

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from adaptd.daemon.domain.calibration import Calibration
from adaptd.daemon.domain.machine import this_machine
from adaptd.daemon.domain.ports import HostInfo
from adaptd.daemon.training.calibration import (
    FILE,
    Calibrator,
    ServedFormat,
    choose_format,
    own_format,
    planned_format,
    weights_bytes,
)
from adaptd.daemon.training.worker.calibrate import layer_shape, step_rows
from adaptd.daemon.wire.errors import HostError
from tests.support.fakes import FakeHost

WITHOUT_BF16 = {"speeds": {"bfloat16": 16.0, "float16": 19.0, "float32": 127.0}}
WITH_BF16 = {"speeds": {"bfloat16": 900.0, "float16": 40.0, "float32": 220.0}}


def a_base(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    found = {"hidden_size": 64, "intermediate_size": 128} | config
    (folder / "config.json").write_text(json.dumps(found))
    return folder


def timed(bfloat16: float, float16: float, float32: float) -> dict[str, object]:
    return {"speeds": {"bfloat16": bfloat16, "float16": float16, "float32": float32}}


@pytest.mark.parametrize(
    ("own", "found", "wanted"),
    [
        ("bfloat16", WITHOUT_BF16, "float32"),
        ("bfloat16", WITH_BF16, "bfloat16"),
        ("bfloat16", timed(100, 999, 119), "bfloat16"),  # float32 gains too little
        ("bfloat16", timed(100, 1, 121), "float32"),
        ("float16", timed(900, 800, 220), "float16"),
        ("float16", timed(200, 20, 100), "bfloat16"),
        ("float16", timed(2, 3, 100), "float32"),
        ("bfloat16", {"native_bf16": True, "device": "H200"}, "bfloat16"),
        ("bfloat16", {"native_bf16": False, "device": "T4"}, "float32"),
        ("float16", {"native_bf16": False, "device": "T4"}, "float16"),
        ("float16", {"native_bf16": True, "device": "H200"}, "float16"),
    ],
)
def test_the_fast_format_is_chosen(own: str, found: dict[str, object], wanted: str) -> None:
    dtype, reason = choose_format(own, found, float32_fits=True)

    assert dtype == wanted
    assert reason


def test_a_format_that_does_not_fit_is_named_with_what_it_would_gain() -> None:
    dtype, reason = choose_format("bfloat16", WITHOUT_BF16, float32_fits=False)

    assert dtype == "bfloat16"
    assert "7.9 x faster" in reason
    assert "memory" in reason


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"dtype": "float16"}, "float16"),
        ({"torch_dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float32"}, "bfloat16"),
        ({"text_config": {"dtype": "float16"}}, "float16"),
        ({}, "bfloat16"),
    ],
)
def test_the_format_of_a_base_is_its_own_16_bit_one(
    tmp_path: Path, config: dict[str, object], wanted: str
) -> None:
    assert own_format(a_base(tmp_path, **config)) == wanted


def test_weights_are_counted_in_16_bits_whatever_they_are_stored_in(tmp_path: Path) -> None:
    for dtype, wanted in (("bfloat16", 1000), ("float16", 1000), ("float32", 500)):
        base = a_base(tmp_path / dtype, dtype=dtype)
        (base / "model.safetensors").write_bytes(bytes(1000))

        assert weights_bytes(base) == wanted
    (tmp_path / "float32" / "pytorch_model.bin").write_bytes(bytes(1000))
    assert weights_bytes(tmp_path / "float32") == 1000


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({"hidden_size": 576, "intermediate_size": 1536}, (576, 1536)),
        ({"n_embd": 768}, (768, 3072)),
        ({"text_config": {"hidden_size": 2560, "intermediate_size": 10240}}, (2560, 4096)),
        ({"hidden_size": 8192, "intermediate_size": 28672}, (4096, 4096)),
        ({}, (1024, 4096)),
    ],
)
def test_the_shapes_are_the_bases_own_within_bounds(
    config: dict[str, object], shape: tuple[int, int]
) -> None:
    assert layer_shape(config) == shape
    assert 32 <= step_rows(*shape) <= 256


def kept(path: Path, base: Path, **changes: object) -> Calibration:
    """A calibration in the file, as this machine would keep it."""
    path.parent.mkdir(exist_ok=True)
    calibrator = Calibrator(base, path)
    calibration = Calibration(
        fingerprint=calibrator._compute_fingerprint(this_machine()),
        machine=this_machine(),
        torch="2",
        dtype="float16",
        reason="a test says so",
        speeds={"bfloat16": 1.0, "float32": 2.0},
        took_s=1.0,
        measured_at=datetime.now(UTC),
    )
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(calibration, **changes)))
    return calibration


def test_what_was_measured_here_holds(tmp_path: Path) -> None:
    base, path = a_base(tmp_path / "base"), tmp_path / "home" / FILE
    calibration = kept(path, base)

    assert Calibrator(base, path).ensure() == calibration


@pytest.mark.parametrize(
    "mask", ["ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "CUDA_VISIBLE_DEVICES"]
)
def test_other_instructions_void_it(
    tmp_path: Path, mask: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, path = a_base(tmp_path / "base"), tmp_path / "home" / FILE
    kept(path, base)

    monkeypatch.setenv(mask, "AVX2")

    assert Calibrator(base, path).known() is None


def test_another_base_voids_it(tmp_path: Path) -> None:
    base, path = a_base(tmp_path / "base"), tmp_path / "home" / FILE
    kept(path, base)

    a_base(base, hidden_size=128)

    assert Calibrator(base, path).known() is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"dtype": "float32"}'])
def test_a_broken_file_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    base, path = a_base(tmp_path / "base"), tmp_path / "home" / FILE
    path.parent.mkdir()
    path.write_bytes(content)

    assert Calibrator(base, path).known() is None


def test_an_interpreter_that_cannot_measure_leaves_the_bases_own_format(tmp_path: Path) -> None:
    base, path = a_base(tmp_path / "base", dtype="float16"), tmp_path / "home" / FILE
    path.parent.mkdir()

    calibration = Calibrator(base, path, python=Path("/bin/false")).ensure()

    assert calibration.dtype == "float16"
    assert "could not measure (exit code 1)" in calibration.reason
    assert not calibration.fingerprint
    assert not path.exists()


def test_another_device_voids_it(tmp_path: Path) -> None:
    base, path = a_base(tmp_path / "base"), tmp_path / "home" / FILE
    kept(path, base)

    assert Calibrator(base, path, on_cpu=False).known() is None
    one, other = (msgspec.structs.replace(this_machine(), gpus=(name,)) for name in ("A100", "T4"))
    calibrator = Calibrator(base, path)
    assert calibrator._compute_fingerprint(one) != calibrator._compute_fingerprint(other)


def test_a_format_says_how_much_slower_it_is(tmp_path: Path) -> None:
    calibration = kept(tmp_path / FILE, a_base(tmp_path / "base"))

    assert calibration.slower("bfloat16") == 2.0
    assert calibration.slower("float32") == 1.0
    assert calibration.slower("float64") is None


def test_an_explicit_format_stays(tmp_path: Path) -> None:
    base = a_base(tmp_path, dtype="float16")

    assert planned_format("bfloat16", base, Calibrator(base, tmp_path / FILE)) == "bfloat16"
    assert planned_format("auto", base, None) == "float16"


class Serving(FakeHost):
    """A host that reports its number format, or is away."""

    said: str | None = "float32"
    away = False

    async def describe(self) -> HostInfo:
        if self.away:
            raise HostError("host", "it is away", "Wait")
        return msgspec.structs.replace(await super().describe(), dtype=self.said)


async def test_training_follows_what_is_served() -> None:
    host = Serving()
    started: list[str] = []
    served = ServedFormat(
        host, started=lambda: started[0] if started else None, planned=lambda: "bfloat16"
    )

    assert await served() == "float32"
    host.said = None  # an older gateway, or none in the server's process
    assert await served() == "bfloat16"
    started.append("float16")  # as the daemon knows of its own server
    assert await served() == "float16"
    host.said, host.away = "float32", True
    assert await served() == "float16"
