"""Curation runs its steps in order, also one from outside the package."""

from datetime import UTC, datetime, timedelta

from adaptd.daemon.dataset.curation import STEPS, curate
from adaptd.daemon.dataset.example import Example
from adaptd.daemon.dataset.select import select_examples
from adaptd.daemon.policy.model import Select
from tests.support.toy_step import ShortAnswers

SAID = datetime(2026, 11, 1, tzinfo=UTC)
POLICY = Select.model_validate({"caps": {"per_user_share": "100%"}})


def an_example(number: int, answer: str, *, author: str = "ada", prompt: str = "") -> Example:
    text = prompt or f"question {number}"
    return Example(
        interaction=f"i{number:03}",
        feedback=f"f{number:03}",
        kind="correction",
        author=author,
        conversation=None,
        messages=[{"role": "user", "content": text}],
        answer=answer,
        asked_at=SAID,
        said_at=SAID + timedelta(seconds=number),
        last_words=text,
        prompt=text,
    )


def test_a_step_from_outside_leaves_out_and_counts() -> None:
    found = curate([an_example(1, "yes"), an_example(2, "a long answer")], POLICY,
                   steps=(*STEPS, ShortAnswers(5)))  # fmt: skip

    assert [example.answer for example in found.kept] == ["yes"]
    assert {reason: n for reason, n in found.refused.items() if n} == {"long_answer": 1}


def test_a_step_gets_what_the_one_before_kept_the_oldest_first() -> None:
    examples = [an_example(2, "new", prompt="p"), an_example(1, "the older one", prompt="p")]

    last = curate(examples, POLICY, steps=(*STEPS, ShortAnswers(5)))
    first = curate(examples, POLICY, steps=(ShortAnswers(5), *STEPS))

    assert [example.answer for example in last.kept] == ["new"]
    assert (last.refused["same_prompt"], last.refused["long_answer"]) == (1, 0)
    assert (first.refused["same_prompt"], first.refused["long_answer"]) == (0, 1)


def test_the_selection_runs_the_steps_it_is_given() -> None:
    row = {
        "id": "i1", "time": SAID, "tenant": None, "params": None, "conversation": None,
        "request": {"messages": [{"role": "user", "content": "hello"}]}, "ratings": [],
        "corrections": [
            {"feedback": "f1", "user": "ada", "principal": None, "choice": 0, "text": "pin",
             "message": None, "value": None, "effective_at": SAID, "ingested_at": SAID}
        ],
    }  # fmt: skip
    as_of = SAID + timedelta(days=1)

    assert len(select_examples([row], POLICY, as_of=as_of).examples) == 1
    none = select_examples([row], POLICY, as_of=as_of, steps=(ShortAnswers(2),))
    assert (none.examples, none.refused) == ([], {"long_answer": 1})


def test_steps_have_names_of_their_own() -> None:
    assert [step.name for step in STEPS] == ["last_word", "person_cap", "one_answer"]
