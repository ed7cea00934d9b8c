"""A policy's expression is tried on the store's own columns, without a daemon."""

import pytest

from adaptd.daemon.store.examples.where_check import where_problem


@pytest.mark.parametrize(
    "where",
    [
        "true",
        "tags['product'] = 'cards' AND time > now() - INTERVAL 30 DAY",
        "correction_user IS DISTINCT FROM 'agent-7' AND rating IS NULL",
        "corrections[-1].origin = 'reviewer' OR len(ratings) > 1",
        "request ->> '$.messages[0].role' = 'system' AND status = 'ok'",
    ],
)
def test_what_fits_the_columns_is_fine(where: str) -> None:
    assert where_problem(where) is None


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("product = 'cards'", "there is no column product"),
        ("latency_ms = 'slow'", "Conversion Error"),
        ("corrections.origin = 'agent'", "Binder Error"),
        ("EXISTS (FROM read_csv('/etc/passwd'))", "it holds a subquery"),
    ],
)
def test_what_does_not_is_told(where: str, said: str) -> None:
    problem = where_problem(where)
    assert problem is not None
    assert said in problem.problem
