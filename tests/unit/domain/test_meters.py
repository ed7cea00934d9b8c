"""Distributions as Prometheus has them, and their quantiles for people."""

import pytest

from adaptd.daemon.domain.meters import Distribution


def test_buckets_count_what_is_at_most_their_bound() -> None:
    found = Distribution([1.0, 10.0])
    for value in (0.5, 1.0, 5, 100):
        found.add(value)
    assert found.buckets() == [("1.0", 2.0), ("10.0", 3.0), ("+Inf", 4.0)]
    assert (found.count, found.total) == (4, 106.5)


@pytest.mark.parametrize(("share", "value"), [(0.0, 0.0), (0.5, 5.0), (1.0, 10.0)])
def test_a_quantile_lies_in_its_bucket(share: float, value: float) -> None:
    found = Distribution([10.0, 20.0])
    for _ in range(10):
        found.add(7)
    assert found.quantile(share) == pytest.approx(value)


def test_nothing_measured_has_no_quantile_and_too_much_the_last_bound() -> None:
    found = Distribution([1.0, 2.0])
    assert found.quantile(0.5) is None
    found.add(1000)
    assert found.quantile(0.99) == 2.0
