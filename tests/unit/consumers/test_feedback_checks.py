"""Where a rating lies, and what each kind of feedback must hold."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptd.consumers.decoding.feedback import check_feedback, scaled_rating
from adaptd.consumers.decoding.json_events import UnreadableError
from adaptd.daemon.wire.events import Feedback
from tests.support.event_samples import a_rating

_finite = st.floats(allow_nan=False, allow_infinity=False)


def feedback(**fields: Any) -> Feedback:
    return msgspec.convert(a_rating("i1", **fields), Feedback)


@pytest.mark.parametrize(
    ("value", "scale", "place"),
    [
        (-1, None, -1),
        (1, None, 1),
        (0.25, None, 0.25),
        (1, [1, 5], -1),
        (3, [1, 5], 0),
        (4, [1, 5], 0.5),
        (5, [1, 5], 1),
        (0, [0, 1], -1),
        (1.7e308, [-1.7e308, 1.7e308], 1),
    ],
)
def test_a_rating_is_mapped_from_its_scale(
    value: float, scale: list[float] | None, place: float
) -> None:
    assert scaled_rating(feedback(value=value, scale=scale)) == pytest.approx(place)


@pytest.mark.parametrize(
    ("value", "scale"),
    [(2, None), (-1.01, None), (6, [1, 5]), (0, [1, 5]), (1, [5, 1]), (1, [1, 1])],
)
def test_a_rating_outside_its_scale_is_refused(value: float, scale: list[float] | None) -> None:
    with pytest.raises(UnreadableError, match="rating_out_of_range"):
        scaled_rating(feedback(value=value, scale=scale))


@given(
    scale=st.tuples(_finite, _finite).map(sorted).filter(lambda scale: scale[0] / 2 < scale[1] / 2),
    share=st.floats(0, 1),
)
def test_a_rating_never_leaves_its_range(scale: list[float], share: float) -> None:
    low, high = scale
    value = min(max(low * (1 - share) + high * share, low), high)

    assert -1 <= scaled_rating(feedback(value=value, scale=scale)) <= 1


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "rating", "value": "good"},
        {"kind": "rating", "value": None},
        {"kind": "correction", "value": None},
        {"kind": "preference", "chosen": "a"},
        {"kind": "label", "name": "topic", "value": None},
        {"kind": "metric", "name": "resolved", "value": "yes"},
        {"kind": "metric", "value": 1},
        {"kind": "comment", "text": ""},
    ],
)
def test_feedback_that_says_nothing_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UnreadableError, match="incomplete"):
        check_feedback(feedback(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "correction", "text": "card_arrival"},
        {"kind": "correction", "message": {"role": "assistant", "content": "x"}},
        {"kind": "preference", "chosen": "a", "rejected": "b"},
        {"kind": "label", "name": "topic", "value": "cards"},
        {"kind": "metric", "name": "resolved", "value": 1},
        {"kind": "comment", "text": "thanks"},
    ],
)
def test_every_kind_is_taken_when_complete(fields: dict[str, Any]) -> None:
    check_feedback(feedback(**fields))
