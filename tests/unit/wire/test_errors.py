"""Messages quote what was given, letter by letter, and their sentences end once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptd.daemon.policy.load import parse_policy
from adaptd.daemon.wire.errors import AdaptdError, join_sentences

QUOTED = ["..", "...", "../../..", "a..b", "../bad/x.yaml", "1..2", "…"]


@pytest.mark.parametrize("quoted", QUOTED)
@pytest.mark.parametrize("place", ["where", "problem", "remedy"])
def test_a_message_never_alters_what_it_quotes(quoted: str, place: str) -> None:
    words = {"where": "here", "problem": "it is wrong", "remedy": "Mend it"}
    words[place] += f" ({quoted})"

    assert quoted in str(AdaptdError(**words))
    assert getattr(AdaptdError(**words), place) == words[place]


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("it is wrong", "here: it is wrong. Mend it."),
        ("it is wrong.", "here: it is wrong. Mend it."),
        ("is it wrong?", "here: is it wrong? Mend it."),
        ("it was cut…", "here: it was cut… Mend it."),
        ("it leads to ..", "here: it leads to .. Mend it."),
        ("it leads to ../../..", "here: it leads to ../../.. Mend it."),
        ("", "here: Mend it."),
    ],
)
def test_a_sentence_that_ends_gets_no_second_full_stop(problem: str, message: str) -> None:
    assert str(AdaptdError("here", problem, "Mend it.")) == message
    assert str(AdaptdError("here", problem, "Mend it")) == message


@given(st.lists(st.text(min_size=1)))
def test_every_sentence_is_there_as_given(parts: list[str]) -> None:
    rest = join_sentences(*parts)
    for part in parts:
        assert rest.startswith(part)
        rest = rest.removeprefix(part).removeprefix(".").removeprefix(" ")
    assert rest == ""


def test_a_policy_problem_names_a_path_that_an_editor_can_open() -> None:
    _, problems, _ = parse_policy("version: 1\nmodle: x\n", name="../bad/x.yaml")
    assert all(str(problem).startswith("../bad/x.yaml:") for problem in problems)


def test_a_value_is_shown_with_the_spaces_it_has() -> None:
    text = 'version: 1\nmodel: support\nbase: tiny\ntrain_when: {cooldown: "6  hours"}\n'
    _, problems, _ = parse_policy(text, name="p.yaml")
    assert "cooldown is 6  hours" in str(problems[0]) or "'6  hours'" in str(problems[0])
