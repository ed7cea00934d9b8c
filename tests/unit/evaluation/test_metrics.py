"""Metrics: each is one file, and one from outside the package judges like the package's own."""

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
import pytest

from adaptd.daemon.domain.receipts import Receipt
from adaptd.daemon.domain.states import Verdict
from adaptd.daemon.evaluation import metrics
from adaptd.daemon.evaluation.criteria import Criterion, Gate
from adaptd.daemon.evaluation.judge import judge
from adaptd.daemon.evaluation.metrics import Metric, find_metric, list_metrics, register_metric
from adaptd.daemon.evaluation.pairs import Pair
from adaptd.daemon.evaluation.power import gate_needs
from adaptd.daemon.evaluation.report import make_report, suite_means
from adaptd.daemon.evaluation.suites import Suite
from tests.support.measurements import a_pair
from tests.support.toy_metric import SURE_AND_WRONG

RECEIPT = Receipt(
    adapter="support@v1-00000000",
    instance="instance-1",
    passed=True,
    created_at=datetime(2026, 11, 30, tzinfo=UTC),
)


@pytest.fixture
def toy() -> Iterator[Metric]:
    yield register_metric(SURE_AND_WRONG)
    del metrics._registered[SURE_AND_WRONG.name]


def pairs(*, better: int, worse: int, same: int) -> list[Pair]:
    """Items that only live, only the candidate, and neither was sure of and got wrong."""
    sure = (0.1, 0.1)
    outcomes = [(True, False)] * better + [(False, True)] * worse + [(True, True)] * same
    return [a_pair(i, candidate=c, live=ell, nll=sure) for i, (c, ell) in enumerate(outcomes)]


def test_the_packages_own_metrics_are_found_by_the_names_that_policies_and_reports_use() -> None:
    assert [metric.name for metric in list_metrics()] == ["exact_match", "nll"]
    assert str(find_metric("nll")) == "nll"


def test_a_metric_from_outside_the_package_judges_and_is_reported(toy: Metric) -> None:
    gate = Gate(
        (Criterion(find_metric("sure_and_wrong"), Suite.FRESH),),
        (Criterion(toy, Suite.GOLDEN, 0.05),),
        alpha=0.05,
        at_least=100,
    )
    measured = {
        Suite.FRESH: pairs(better=30, worse=6, same=84),
        Suite.GOLDEN: pairs(better=2, worse=40, same=158),
    }

    found = judge(gate, measured, {})

    fresh, golden = found.findings
    assert (fresh.metric, fresh.verdict, fresh.live) == ("sure_and_wrong", Verdict.PASSED, 0.25)
    assert fresh.reason.startswith("+20 per cent (")
    assert golden.verdict is found.verdict is Verdict.FAILED
    assert found.reason.startswith("sure_and_wrong on golden: -19 per cent")
    assert "may drop 5;" in found.reason
    report = make_report(found, measured, left_out={}, receipt=RECEIPT)
    assert report["suites"]["fresh"]["sure_and_wrong"]["live"] == 0.25
    assert msgspec.json.encode(report)


def test_its_own_assumptions_say_how_many_items_a_gate_needs(toy: Metric) -> None:
    gate = Gate((Criterion(toy, Suite.FRESH),), (), alpha=0.05, at_least=100)

    (need,) = gate_needs(gate, {Suite.FRESH: 100})

    assert need.usual_eighth > need.usual_first > 500  # a twentieth differs, 2 points to see


def test_once_it_is_gone_no_report_has_it() -> None:
    means = suite_means(pairs(better=1, worse=1, same=1))

    assert means.keys() == {"items", "exact_match", "nll"}


def test_two_metrics_of_one_name_and_an_unknown_one_are_refused() -> None:
    twin = find_metric("nll")
    assert register_metric(twin) is twin

    with pytest.raises(ValueError, match="two metrics are named nll"):
        register_metric(
            Metric(
                name="nll",
                value=twin.value,
                direction=twin.direction,
                test=twin.test,
                unit="",
                scale=1.0,
                digits=1,
                usual_gain=0.1,
            )
        )
    with pytest.raises(ValueError, match="no metric is named 'bleu', known are exact_match, nll"):
        find_metric("bleu")
