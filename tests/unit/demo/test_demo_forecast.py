"""The demo's times: scaled by the machine, corrected by what was measured, bounded once."""

from datetime import UTC, datetime

import pytest

from adaptd.daemon.demo.forecast import REFERENCE_GFLOPS, STAGES, Forecast, Part, Stage, slowness
from adaptd.daemon.domain.calibration import Calibration
from adaptd.daemon.domain.machine import Machine

PARTS = (Part("a", 10, 100), Part("b", 0, 200), Part("c", 30, 0))
STAGE = Stage("s", "a stage", PARTS)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def calibration(*, cores: int = 2, **speeds: float) -> Calibration:
    return Calibration(
        fingerprint="f",
        machine=Machine(processor="p", instruction_sets=(), cores=cores, memory_bytes=1),
        torch="2",
        dtype="float32",
        reason="",
        speeds=speeds,
        took_s=3,
        measured_at=datetime.now(UTC),
    )


def test_only_computing_takes_longer_on_a_slow_machine() -> None:
    assert Forecast([STAGE], slowness=1).whole_s == 340
    assert Forecast([STAGE], slowness=2).whole_s == 640


def test_a_machine_of_half_the_speed_computes_twice_as_long() -> None:
    assert slowness(calibration(float32=REFERENCE_GFLOPS / 2), "float32") == pytest.approx(2)
    assert slowness(calibration(), "float32") < 1  # a GPU


@pytest.mark.parametrize(("cores", "slower"), [(1, 2), (2, 1), (3, 2 / 3), (4, 0.5), (64, 0.5)])
def test_one_core_computes_twice_as_long_as_two_and_many_no_faster_than_four(
    cores: int, slower: float
) -> None:
    found = calibration(cores=cores, float32=REFERENCE_GFLOPS)
    assert slowness(found, "float32") == pytest.approx(slower)


def test_a_gpu_is_no_faster_with_more_cores() -> None:
    assert slowness(calibration(cores=16), "float16") == slowness(calibration(), "float16")


def test_a_start_of_vllm_takes_longer_on_one_core_and_not_in_proportion() -> None:
    two_avx2_cores, one = (Forecast(slowness=slow).expected_s("setup.start") for slow in (1, 2))
    assert two_avx2_cores == pytest.approx(138)
    assert 1.4 < one / two_avx2_cores < 1.8


def test_time_left_falls_with_the_clock_and_stands_at_zero_where_a_part_overruns() -> None:
    clock = Clock()
    forecast = Forecast([STAGE], clock=clock)
    forecast.begin("a")
    clock.now = 60
    assert forecast.left_s == 280
    clock.now = 1000
    assert forecast.left_s == 230


def test_what_finished_parts_took_corrects_the_rest() -> None:
    clock = Clock()
    forecast = Forecast([STAGE], clock=clock)
    forecast.begin("a")
    clock.now = 10 + 260  # its timer, and 2.6 times the computing
    forecast.begin("b")
    assert forecast.pace == pytest.approx((60 + 260) / (60 + 100))
    assert forecast.left_s == pytest.approx(2 * 200 + 30)


def test_a_part_that_counts_says_itself_how_much_is_left() -> None:
    clock = Clock()
    forecast = Forecast([STAGE], clock=clock)
    forecast.begin("b")
    clock.now = 100
    forecast.tell_left(500)
    clock.now = 150
    assert forecast.left_s == 450 + 30


def test_the_bound_is_generous_and_comes_from_the_forecast() -> None:
    assert Forecast([STAGE]).bound_s == 3600
    usual, slow = Forecast(slowness=1), Forecast(slowness=20)
    assert usual.bound_s == 5 * usual.whole_s
    assert slow.bound_s == slow.whole_s + 4 * 3600


def test_the_story_takes_under_an_hour_on_the_reference_machine() -> None:
    assert 45 * 60 < Forecast(STAGES).whole_s < 60 * 60
