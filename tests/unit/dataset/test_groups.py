"""A group is on one side for good, and golden examples are on none."""

from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from adaptd.daemon.dataset.example import Example
from adaptd.daemon.dataset.groups import Split, members_of, message_key, split_examples
from adaptd.daemon.dataset.prompts import normalised
from adaptd.daemon.store.lifecycle.snapshots import Member
from adaptd.daemon.wire.events import JudgingKind


def an_example(
    number: int, conversation: str, text: str, kind: JudgingKind = "correction"
) -> Example:
    return Example(
        interaction=f"i{number:03}",
        feedback=f"f{number:03}",
        kind=kind,
        author="ada",
        conversation=conversation,
        messages=[{"role": "user", "content": text}],
        answer="x",
        asked_at=datetime(2026, 11, 1, tzinfo=UTC),
        said_at=datetime(2026, 11, 1, tzinfo=UTC),
        last_words=normalised(text),
        prompt=normalised(text),
    )


def split(
    examples: Sequence[Example],
    known: dict[str, Member] | None = None,
    golden: Sequence[str] = (),
    share: float = 0.5,
    joining: int = 1,
    key: bytes = b"of a test",
) -> Split:
    return split_examples(examples, known or {}, golden, share=share, joining=joining, key=key)


def recorded(*splits: Split) -> dict[str, Member]:
    return {member.member: member for made in splits for member in made.new}


def test_conversations_sharing_a_last_message_are_one_group() -> None:
    made = split([an_example(1, "c1", "My Card"), an_example(2, "c2", "my  card")], share=0)

    assert len({group for _, group in made.train}) == 1


def test_about_the_asked_share_is_held_out() -> None:
    made = split([an_example(n, f"c{n}", f"text {n}") for n in range(1000)], share=0.2)

    assert 160 <= len(made.holdout) <= 240
    assert len(made.train) + len(made.holdout) == 1000


def test_the_side_of_a_new_group_is_not_to_be_known_without_the_key() -> None:
    examples = [an_example(n, f"c{n}", f"text {n}") for n in range(1000)]
    here, there = split(examples), split(examples, key=b"of another installation")

    assert held(here) == held(split(examples)), "the same key decides the same"
    both = len(held(here) & held(there))
    assert 200 <= both <= 300, "as often as by chance"


def test_a_group_stays_on_its_side_under_another_key() -> None:
    """As after a restore without secrets."""
    examples = [an_example(n, f"c{n}", f"text {n}") for n in range(100)]
    before = split(examples)

    after = split(examples, recorded(before), key=b"of another installation")

    assert (after.train, after.holdout) == (before.train, before.holdout)


def held(made: Split) -> set[str]:
    return {example.feedback for example, _, _ in made.holdout}


def test_only_corrections_are_references() -> None:
    made = split([an_example(1, "c1", "a", "rating"), an_example(2, "c1", "b")], share=1)

    assert [example.feedback for example, _, _ in made.holdout] == ["f002"]
    assert made.left_out == {"approved_in_holdout": 1}


def test_a_group_with_a_golden_message_is_on_no_side() -> None:
    examples = [an_example(1, "c1", "a"), an_example(2, "c1", "b"), an_example(3, "c3", "z")]

    made = split(examples, golden=[message_key("b")], share=0)

    assert [example.feedback for example, _ in made.train] == ["f003"]
    assert made.left_out == {"golden_group": 2}


def test_groups_of_two_sides_that_meet_are_left_out() -> None:
    first = split([an_example(1, "c1", "a")], share=0)
    second = split([an_example(2, "c2", "b")], share=1)
    bridge = an_example(3, "c1", "b")

    made = split([bridge], recorded(first, second))

    assert (made.train, made.holdout, made.left_out) == ([], [], {"groups_met": 1})


def test_a_new_group_joins_the_version_that_was_never_scored() -> None:
    first = split([an_example(1, "c1", "a")], share=1, joining=1)
    later = split(
        [an_example(1, "c1", "a"), an_example(2, "c2", "b")], recorded(first), share=1, joining=2
    )

    assert [(e.feedback, version) for e, _, version in later.holdout] == [("f001", 1), ("f002", 2)]


def test_groups_of_two_holdout_versions_that_meet_count_for_the_older() -> None:
    first = split([an_example(1, "c1", "a")], share=1, joining=1)
    second = split([an_example(2, "c2", "b")], share=1, joining=2)

    made = split([an_example(3, "c1", "b")], recorded(first, second), share=1, joining=2)

    assert [version for _, _, version in made.holdout] == [1]


texts = st.sampled_from("abcdefgh")
events = st.lists(
    st.tuples(st.sampled_from(["c1", "c2", "c3", "c4", "c5"]), texts), min_size=1, max_size=30
)


@given(events, st.lists(texts, max_size=2), st.integers(1, 5), st.floats(0.1, 0.9))
def test_nothing_held_out_or_golden_is_ever_trained_on(
    drawn: list[tuple[str, str]], golden: list[str], rounds: int, share: float
) -> None:
    """Over growing data: what was held out once, and all linked to it, never trains."""
    examples = [an_example(n, conversation, text) for n, (conversation, text) in enumerate(drawn)]
    known: dict[str, Member] = {}
    keys = [message_key(text) for text in golden]
    kept: set[str] = set()
    for turn in range(1, rounds + 1):
        made = split(examples[: len(examples) * turn // rounds], known, keys, share, turn)
        known |= recorded(made)
        kept |= {key for example, _, _ in made.holdout for key in members_of(example)}
        trained = {key for example, _ in made.train for key in members_of(example)}
        assert not trained & (kept | set(keys))
        assert all(known[key].side == "train" for key in trained)


@given(events, st.randoms(use_true_random=False))
def test_the_order_of_examples_decides_nothing(drawn: list[tuple[str, str]], rng: Random) -> None:
    examples = [an_example(n, conversation, text) for n, (conversation, text) in enumerate(drawn)]
    shuffled = rng.sample(examples, len(examples))
    one, other = split(examples), split(shuffled)
    assert (one.train, one.holdout, one.left_out) == (other.train, other.holdout, other.left_out)
    assert recorded(one) == recorded(other)
