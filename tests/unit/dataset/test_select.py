"""The selection of answers to learn from."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptd.daemon.dataset.curation.person_cap import fair_cap
from adaptd.daemon.dataset.prompts import last_words, normalised, prompt_key
from adaptd.daemon.dataset.select import Selection, select_examples
from adaptd.daemon.policy.model import Caps, Select

AS_OF = datetime(2026, 11, 2, tzinfo=UTC)
EARLIER = AS_OF - timedelta(hours=5)


def a_row(number: int = 1, text: str = "where is my card", **fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "delivery"}
    return {
        "id": f"i{number:03}",
        "time": EARLIER,
        "tenant": "desk",
        "params": None,
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
        "unscaled": False,
        "effective_at": EARLIER,
        "ingested_at": EARLIER,
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


@pytest.mark.parametrize("value", [0.5, -0.5, 0.0])
def test_a_rating_without_a_scale_never_trains(value: float) -> None:
    selection = selected(a_row(ratings=[said(value=value, unscaled=True)]))

    assert (answers(selection), selection.refused) == ([], {"rating_without_scale": 1})


@pytest.mark.parametrize(
    ("others", "found"),
    [([said(2, "bob", value=1.0)], ["delivery"]), ([said(2, "bob", value=-1.0)], [])],
)
def test_a_rating_without_a_scale_leaves_it_to_the_others(
    others: list[dict[str, Any]], found: list[str]
) -> None:
    selection = selected(a_row(ratings=[said(1, value=0.5, unscaled=True), *others]))

    assert answers(selection) == found
    assert selection.refused["rating_without_scale"] == 1


def test_a_correction_wins_over_a_rating_without_a_scale() -> None:
    row = a_row(corrections=[said(1, text="pin")], ratings=[said(2, value=0.5, unscaled=True)])

    assert (answers(selected(row)), selected(row).refused) == (["pin"], {})


def test_a_thumb_down_alone_never_trains() -> None:
    selection = selected(a_row(ratings=[said(1, value=1.0), said(2, "bob", value=-1.0)]))

    assert (answers(selection), selection.refused) == ([], {"not_approved": 1})


def test_young_feedback_waits_whatever_time_its_sender_claims() -> None:
    young = AS_OF - timedelta(minutes=5)
    row = a_row(corrections=[said(text="pin", effective_at=EARLIER, ingested_at=young)])

    assert selected(row).refused == {"too_young": 1}


def test_young_feedback_does_not_hide_what_others_said_before() -> None:
    young = {"effective_at": AS_OF, "ingested_at": AS_OF}
    row = a_row(corrections=[said(1, text="pin"), said(2, "mallory", text="refund", **young)])

    assert answers(selected(row)) == ["pin"]


def test_an_empty_correction_does_not_silence_a_right_one() -> None:
    row = a_row(corrections=[said(1, text="pin"), said(2, "mallory", text=" ")])

    selection = selected(row)

    assert (answers(selection), selection.refused) == (["pin"], {"empty_answer": 1})


def test_a_flood_of_corrections_takes_out_nothing_beyond_its_cap() -> None:
    """One person who corrects everything, and last, replaces no more answers than their cap."""
    later = EARLIER + timedelta(hours=1)
    rows = [
        a_row(
            n,
            corrections=[
                said(n, f"u{n}", text="right"),
                said(100 + n, "mallory", text="wrong", effective_at=later),
            ],
        )
        for n in range(1, 21)
    ]

    found = answers(selected(*rows, per_user=3))

    assert (found.count("right"), found.count("wrong")) == (17, 3)


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


def test_feedback_without_a_user_is_capped_by_token() -> None:
    rows = [a_row(n, corrections=[said(n, None, text="x")]) for n in range(1, 6)]

    assert len(selected(*rows, per_user=3).examples) == 3


def test_the_share_of_one_person_is_capped_but_one_example_is_always_allowed() -> None:
    rows = [a_row(n, corrections=[said(n, text="x")]) for n in range(1, 11)]

    assert len(selected(*rows, per_user_share=0.2).examples) == 1
    rows += [a_row(n, corrections=[said(n, f"u{n}", text="x")]) for n in range(20, 28)]
    assert len(selected(*rows, per_user_share=0.2).examples) == 8 + 2
    assert len(selected(*rows, per_user_share=0.01).examples) == 8 + 1


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=12),
    st.floats(0.01, 0.99) | st.just(1.0),  # a policy gives percent
)
def test_nobody_gets_more_than_the_share_and_a_flood_buys_nothing(
    counts: list[int], share: float
) -> None:
    most = cap_of(counts, share)
    kept = sum(min(count, most) for count in counts)
    assert most == 1 or most <= share * kept + 1e-6
    flooded = cap_of([*counts[1:], counts[0] + 1000], share)
    others = sum(min(count, flooded) for count in counts[1:])
    assert flooded == 1 or share == 1 or flooded <= share * others / (1 - share) + 1e-6


def cap_of(counts: list[int], share: float) -> int:
    """Of people who all asked something else."""
    places = [place for count in counts for place in range(1, count + 1)]
    return fair_cap(places, share, most=max(counts))


def test_the_share_is_of_what_is_kept_once_equal_prompts_are_settled() -> None:
    """Ada has 4 of 20 before, and 4 of 8 after: everybody else corrected the same few answers."""
    rows = [a_row(n, corrections=[said(n, text="x")]) for n in range(1, 5)]
    for n in range(20, 24):
        by = [said(10 * n + k, f"u{n}-{k}", text="x") for k in range(4)]
        rows.append(a_row(n, corrections=by))

    selection = selected(*rows, per_user_share=0.2)

    assert sum(example.author == "ada" for example in selection.examples) == 1
    assert len(selection.examples) == 5


SAID = st.tuples(st.integers(0, 5), st.integers(1, 12))  # who, of which answer
SAYINGS = st.lists(SAID, min_size=1, max_size=60, unique=True)


def said_by(sayings: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Rows with everybody's corrections, each said after the one before."""
    corrections: dict[int, list[dict[str, Any]]] = {}
    for number, (who, answer) in enumerate(sayings):
        at = EARLIER + timedelta(seconds=number)
        by = said(number, f"u{who}", text=f"by u{who}", effective_at=at)
        corrections.setdefault(answer, []).append(by)
    return [a_row(answer, corrections=by) for answer, by in corrections.items()]


@given(SAYINGS, st.floats(0.05, 1), st.integers(1, 8))
def test_nobody_owns_more_of_the_kept_than_their_share(
    sayings: list[tuple[int, int]], share: float, per_user: int
) -> None:
    kept = selected(*said_by(sayings), per_user=per_user, per_user_share=share).examples

    owned = Counter(example.author for example in kept)
    assert all(n == 1 or n <= min(per_user, share * len(kept) + 1e-6) for n in owned.values())


@given(SAYINGS, st.floats(0.05, 1))
def test_one_person_takes_out_no_more_than_their_cap(
    sayings: list[tuple[int, int]], share: float
) -> None:
    others = [saying for saying in sayings if saying[0] != 0]
    mallory = [saying for saying in sayings if saying[0] == 0]
    before = selected(*said_by(others), per_user_share=share).examples
    after = selected(*said_by([*others, *mallory]), per_user_share=share)

    mine = sum(example.author == "u0" for example in after.examples)
    assert len(after.examples) - mine >= len(before) - mine
    assert len(after.examples) >= len(before)


def test_what_a_policy_does_not_use_is_left_out() -> None:
    rows = [a_row(1, corrections=[said(1, text="x")]), a_row(2, ratings=[said(2, value=1.0)])]

    assert answers(selected(*rows, use=("rating",))) == ["delivery"]
    assert answers(selected(*rows, use=("correction",))) == ["x"]


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"messages": []},
        {"messages": "hi"},
        {"messages": [1]},
        {"messages": [{}]},
        [],
        5,
        "null",
    ],
)
def test_a_request_that_is_no_conversation_is_counted(request_: Any) -> None:
    row = a_row(request=request_, corrections=[said(text="x")])
    assert selected(row).refused == {"no_messages": 1}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"choices": []}, "no_answer"),
        ({"choices": [5]}, "no_answer"),
        ({"choices": None}, "no_answer"),
        ({"choices": [{"message": "x"}]}, "no_answer"),
        ({"status": "error"}, "no_answer"),
        ({"choices": [{"message": {"content": " "}}]}, "empty_answer"),
        ({"choices": [{"message": {"tool_calls": [{}]}}]}, "tool_call_answer"),
        ({"choices": [{"message": {"content": [{"type": "image_url"}]}}]}, "not_text"),
        ({"choices": [{"message": {"content": "x"}, "finish_reason": "content_filter"}]}, "cut"),
    ],
)
def test_an_answer_that_cannot_be_learnt_is_counted(fields: dict[str, Any], reason: str) -> None:
    selection = selected(a_row(ratings=[said(value=1.0)], **fields))
    assert selection.examples == []
    assert next(iter(selection.refused)).startswith(reason)


def test_a_question_that_is_not_text_is_counted() -> None:
    picture = [{"type": "image_url", "image_url": {"url": "data:"}}]
    row = a_row(request={"messages": [{"role": "user", "content": picture}]})
    assert selected(row | {"corrections": [said(text="x")]}).refused == {"not_text": 1}


def test_what_was_asked_with_is_kept_for_rendering() -> None:
    request = a_row()["request"] | {"tools": [{}], "chat_template_kwargs": {"a": 1}}
    row = a_row(request=request, params='{"reasoning_effort": "low"}')
    (example,) = selected(row | {"corrections": [said(text="x")]}).examples
    assert (example.tools, example.template_args) == ([{}], {"a": 1})
    assert (example.reasoning_effort, example.asked_at) == ("low", EARLIER)


@pytest.mark.parametrize(
    "text",
    ["Where is\tmy  CARD ", "where is my card", "Ｗhere is my\u200b card", "WHERE IS MY CARD"],
)
def test_texts_that_look_alike_are_one(text: str) -> None:
    assert normalised(text) == "where is my card"


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


def test_the_group_is_of_the_last_thing_the_user_said() -> None:
    messages = [
        {"role": "user", "content": "first"},
        {"role": "user", "content": "Second"},
        {"role": "tool", "content": "result"},
    ]
    assert last_words(messages) == "second"
    assert last_words([{"role": "system", "content": "S"}]) == "s"


def test_prompts_differ_by_who_speaks_and_by_their_tools() -> None:
    user, system = {"role": "user", "content": "a"}, {"role": "system", "content": "a"}
    keys = [prompt_key([user], None), prompt_key([system], None), prompt_key([user], [{"x": 1}])]
    assert len(set(keys)) == 3
    assert prompt_key([user], []) == prompt_key([{"role": "user", "content": " A "}], None)


@given(st.permutations(range(1, 9)), st.integers(1, 4))
def test_the_order_of_rows_decides_nothing(order: list[int], per_user: int) -> None:
    def row(n: int) -> dict[str, Any]:
        by = said(n, f"u{n % 3}", text=f"q{n % 4}", effective_at=EARLIER - timedelta(minutes=n % 2))
        return a_row(n, corrections=[by], request=a_row(n % 5)["request"])

    plain = selected(*[row(n) for n in range(1, 9)], per_user=per_user)
    assert selected(*[row(n) for n in order], per_user=per_user) == plain
