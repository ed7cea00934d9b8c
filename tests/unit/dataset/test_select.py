"""Which answers are learnt from."""

from datetime import UTC, datetime, timedelta
from typing import Any

from daemon.dataset.select import Selection, select_examples
from daemon.policy.model import Caps, Select

AS_OF = datetime(2026, 11, 2, tzinfo=UTC)
EARLIER = AS_OF - timedelta(hours=5)


def a_row(number: int = 1, text: str = "where is my card", **fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "delivery"}
    return {
        "id": f"i{number:03}",
        "conversation": f"c{number}",
        "request": {"messages": [{"role": "user", "content": f"{text} {number}"}]},
        "choices": [{"message": message, "finish_reason": "stop"}],
        "status": "ok",
        "corrections": [],
        "ratings": [],
    } | fields


def said(number: int = 1, user: str | None = "ada", **fields: Any) -> dict[str, Any]:
    return {
        "feedback": f"f{number:03}",
        "user": user,
        "principal": "desk",
        "choice": 0,
        "text": None,
        "message": None,
        "value": None,
        "effective_at": EARLIER,
    } | fields


def selected(*rows: dict[str, Any], **policy: Any) -> Selection:
    caps = Caps.model_construct(
        per_user=policy.pop("per_user", 20),
        per_user_share=policy.pop("per_user_share", 1.0),
        min_age=timedelta(hours=1),
    )
    select = Select.model_construct(where="true", use=("correction", "rating"), caps=caps)
    return select_examples(rows, select.model_copy(update=policy), as_of=AS_OF)


def answers(selection: Selection) -> list[str]:
    return [example.answer for example in selection.examples]


def test_the_latest_correction_is_the_answer() -> None:
    row = a_row(corrections=[said(1, text="pin"), said(2, text="fees")])

    assert answers(selected(row)) == ["fees"]


def test_a_correction_wins_over_a_thumb() -> None:
    row = a_row(corrections=[said(1, text="pin")], ratings=[said(2, value=1.0)])

    assert answers(selected(row)) == ["pin"]


def test_an_approved_answer_is_learnt_as_served() -> None:
    assert answers(selected(a_row(ratings=[said(value=1.0)]))) == ["delivery"]


def test_a_thumb_down_alone_never_trains() -> None:
    selection = selected(a_row(ratings=[said(1, value=1.0), said(2, "bob", value=-1.0)]))

    assert (answers(selection), selection.refused) == ([], {"not_approved": 1})


def test_young_feedback_waits() -> None:
    row = a_row(corrections=[said(text="pin", effective_at=AS_OF - timedelta(minutes=5))])

    assert selected(row).refused == {"too_young": 1}


def test_a_cut_answer_is_not_approved_into_training() -> None:
    cut = [{"message": {"content": "del"}, "finish_reason": "length"}]

    assert selected(a_row(choices=cut, ratings=[said(value=1.0)])).refused == {"cut_answer": 1}


def test_rows_without_messages_are_counted_not_used() -> None:
    assert selected(a_row(request=None, corrections=[said(text="x")])).refused == {"no_messages": 1}


def test_the_same_conversation_text_counts_once_with_the_newest_word() -> None:
    old = a_row(1, corrections=[said(1, text="pin", effective_at=EARLIER - timedelta(hours=1))])
    new = a_row(2, corrections=[said(2, text="fees")], request=old["request"])

    selection = selected(old, new)

    assert (answers(selection), selection.refused) == (["fees"], {"same_prompt": 1})


def test_one_person_is_capped_newest_first() -> None:
    rows = [
        a_row(n, corrections=[said(n, text=f"q{n}", effective_at=EARLIER + timedelta(minutes=n))])
        for n in range(1, 6)
    ]

    selection = selected(*rows, per_user=2)

    assert (answers(selection), selection.refused) == (["q4", "q5"], {"over_cap": 3})


def test_who_left_no_user_is_capped_as_his_token() -> None:
    rows = [a_row(n, corrections=[said(n, None, text="x")]) for n in range(1, 6)]

    assert len(selected(*rows, per_user=3).examples) == 3


def test_the_share_of_one_person_is_capped_but_one_example_is_always_allowed() -> None:
    rows = [a_row(n, corrections=[said(n, text="x")]) for n in range(1, 11)]

    assert len(selected(*rows, per_user_share=0.2).examples) == 2
    assert len(selected(*rows, per_user_share=0.01).examples) == 1


def test_what_a_policy_does_not_use_is_left_out() -> None:
    rows = [a_row(1, corrections=[said(1, text="x")]), a_row(2, ratings=[said(2, value=1.0)])]

    assert answers(selected(*rows, use=("rating",))) == ["delivery"]
    assert answers(selected(*rows, use=("correction",))) == ["x"]
