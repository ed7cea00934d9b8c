"""Every problem of a file at once, at its line, with what to write instead."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptd.daemon.policy.document import read_document
from adaptd.daemon.policy.load import Limits, load_policy, parse_policy
from adaptd.daemon.policy.schema import schema_text
from tests.support.policy_files import FULL, GOLDEN_LINE, MINIMAL, write_golden, write_policy

ROOT = Path(__file__).resolve().parents[3]
WRONG = """\
version: 1
modle: support
base: tiny
timezone: Mars/Olympus
select:
  where: ""
  caps: {per_user: true, per_user_share: 3}
curate:
  near_duplicates: 0.85
  holdout: {at_least: 29, golden: golden/support.jsonl}
train_when:
  any: [{new_examples: 0}, {drift: 0.2}]
  cooldown: 6 hours
train: {method: dpo, rank: 8.5}
gate: {must_not_drop: [{metric: nll, on: history, by: 0.05}]}
rollout:
  steps: [{weight: 5%}, {weight: 120%}]
"""
PROBLEMS = """\
1: model is missing. Add it: the alias that applications use.
2: modle is not a key. Write model.
4: timezone is 'Mars/Olympus'. Give an IANA name such as Europe/Madrid.
6: select.where is empty. Give at least 1 letter.
7: select.caps.per_user is true. Give a whole number.
7: select.caps.per_user_share is 3. Give a share from 0% to 100%, or from 0 to 1.
9: curate.near_duplicates does not work in this version of adaptd. Remove the key; equal texts are \
removed without it.
10: curate.holdout.at_least is 29. Give 30 or more.
12: train_when.any[0].new_examples is 0. Give more than 0.
12: train_when.any[1].drift does not work in this version of adaptd. Use new_examples, \
negative_share or cron.
13: train_when.cooldown is 6 hours. Give a duration such as 30s, 30m, 6h or 7d.
14: train.method is dpo, which does not work in this version of adaptd. Write auto or sft.
14: train.rank is 8.5. Give a whole number.
15: gate.must_not_drop[0].on is history, which does not work in this version of adaptd. Write \
fresh or golden.
17: rollout.steps[1].weight is 120%. Give a share from 0% to 100%, or from 0 to 1.
"""


def problems_of(path: Path, folder: Path, limits: Limits | None = None) -> list[str]:
    loaded = load_policy(path, folder=folder, limits=limits or Limits())
    assert (loaded.policy is None) == bool(loaded.problems)
    return [str(problem).replace(f"{folder}/", "") for problem in loaded.problems]


def test_every_problem_is_told_at_once_at_its_line(tmp_path: Path) -> None:
    found = problems_of(write_policy(tmp_path, WRONG), tmp_path)
    assert found == [f"support.yaml:{line}" for line in PROBLEMS.splitlines()]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("curate", "{redact: [email]}"),
        ("curate", "{near_duplicates: 0.85}"),
        ("curate", "{replay_share: 0.2}"),
        ("train_when", "{budget: {gpu_hours_per_day: 4}}"),
        ("train_when", "{any: [{drift: 0.1}]}"),
        ("select", "{use: [correction, preference]}"),
        ("train", "{method: kto}"),
        ("gate", "{must_improve: [{metric: nll, on: history}]}"),
    ],
)
def test_keys_that_do_not_work_yet_are_refused(key: str, value: str) -> None:
    policy, problems, _ = parse_policy(MINIMAL + f"{key}: {value}\n", name="p.yaml")
    assert policy is None
    assert "does not work in this version of adaptd" in "\n".join(map(str, problems))


def test_a_whole_policy_with_its_golden_file_has_no_problems(tmp_path: Path) -> None:
    write_golden(tmp_path)
    assert problems_of(write_policy(tmp_path, FULL), tmp_path) == []


def test_a_key_given_twice_is_a_problem(tmp_path: Path) -> None:
    path = write_policy(tmp_path, MINIMAL + "base: other\n")
    assert problems_of(path, tmp_path) == [
        "support.yaml:4: base is given again, first in line 3. Keep one of them."
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("~", "it is empty"),
        ("# later\nnull", "it is empty"),
        ("!", "it is empty"),
        ("- 1\n", "the policy is a list of 1"),
        ("a: [1\nb: 2", "it is not YAML"),
        ("\ta: 1", "it is not YAML"),
        ("[" * 9000, "it is not YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", "the tag"),
        ("a: &x [*x]\n", "an anchor is used again"),
        ("a: \x00", "it is not YAML"),
        ("---\na: 1\n---\nb: 1\n", "it is not YAML"),
    ],
)
def test_what_is_no_policy_is_a_problem_and_no_accident(
    text: str, said: str, tmp_path: Path
) -> None:
    assert said in "\n".join(problems_of(write_policy(tmp_path, text), tmp_path))


def test_a_base_the_settings_do_not_know_is_a_problem(tmp_path: Path) -> None:
    path = write_policy(tmp_path, MINIMAL + "train: {rank: 16}\n")
    found = problems_of(path, tmp_path, Limits(bases=frozenset({"smollm2-135m"}), max_rank=8))
    assert found == [
        "support.yaml:3: base is tiny, which the settings do not know. "
        "Write a name from [bases] (smollm2-135m), or add it there.",
        "support.yaml:4: train.rank is 16, and vLLM is started for 8 at most. "
        "Lower it, or raise upstream.max_lora_rank in the settings.",
    ]


# Golden files ------------------------------------------------------------------------------------


def golden_problems(folder: Path, name: str) -> str:
    text = MINIMAL + f"curate: {{holdout: {{golden: '{name}'}}}}\n"
    return "\n".join(problems_of(write_policy(folder, text), folder))


@pytest.mark.parametrize("name", ["../secret.jsonl", "/etc/passwd", "golden/../../secret.jsonl"])
def test_a_golden_path_that_leaves_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text(GOLDEN_LINE)
    assert "leads out of the policy folder" in golden_problems(tmp_path / "policies", name)


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text(GOLDEN_LINE)
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "golden.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (folder / "out").symlink_to(tmp_path)
    assert "leads out of the policy folder" in golden_problems(folder, "golden.jsonl")
    assert "leads out of the policy folder" in golden_problems(folder, "out/secret.jsonl")


def test_a_policy_that_is_a_link_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    outside = write_policy(tmp_path, MINIMAL, name="outside.yaml")
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "support.yaml").symlink_to(outside)
    assert "leads out of the policy folder" in problems_of(folder / "support.yaml", folder)[0]


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    write_policy(tmp_path / "..data", MINIMAL)  # how a mounted configuration looks
    (tmp_path / "support.yaml").symlink_to("..data/support.yaml")
    assert problems_of(tmp_path / "support.yaml", tmp_path) == []


def test_a_pipe_or_a_device_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "support.yaml")
    os.mkfifo(tmp_path / "golden.jsonl")
    assert "not a regular file" in problems_of(tmp_path / "support.yaml", tmp_path)[0]
    (tmp_path / "support.yaml").unlink()
    assert "not a regular file" in golden_problems(tmp_path, "golden.jsonl")


def test_links_in_a_circle_are_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert golden_problems(tmp_path, "a") != ""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "it is not a JSON object"),
        ("[1]", "the item is wrong"),
        ('{"messages": []}', "the item is wrong"),
        ('{"messages": [], "reference": "a"}', "its messages have no roles"),
        ('{"messages": [{"role": "user"}], "reference": " "}', "its reference is empty"),
        (
            '{"messages": [{"role": "assistant"}], "reference": "a"}',
            "its last message is an answer",
        ),
        ('{"messages": [{"role": "user"}], "reference": "a", "refernce": 1}', "the item is wrong"),
        ('{"messages": [{"role": "user", "content": [1]}], "reference": "a"}', "is not text"),
        ('{"messages": [{"role": "user", "content": 5}], "reference": "a"}', "is not text"),
        (GOLDEN_LINE.strip(), "it has the messages of line 1"),
        ('{"messages": [{"role": "user"}], "reference": "\xff"}'.encode("latin-1"), "JSON"),
    ],
)
def test_a_golden_line_that_cannot_be_used_is_named(
    line: str | bytes, said: str, tmp_path: Path
) -> None:
    path = write_golden(tmp_path)
    path.write_bytes(GOLDEN_LINE.encode() + (line if isinstance(line, bytes) else line.encode()))
    found = golden_problems(tmp_path, "golden/support.jsonl")
    assert "golden/support.jsonl:2: " in found
    assert said in found


def test_an_empty_golden_file_is_a_problem(tmp_path: Path) -> None:
    write_golden(tmp_path, "\n\n")
    assert "it has no items" in golden_problems(tmp_path, "golden/support.jsonl")


# Kept true ---------------------------------------------------------------------------------------


@given(st.text(max_size=200))
def test_no_text_stops_the_reader(text: str) -> None:
    document = read_document(text)
    assert document.data is None or document.line_of(("a", 0)) >= 1
    parse_policy(text, name="p.yaml")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=8,
    ),
    st.sampled_from(["select", "curate", "train_when", "train", "gate", "rollout", "timezone"]),
)
def test_no_value_of_a_key_stops_the_reader(value: object, key: str) -> None:
    import json  # noqa: PLC0415 - JSON is YAML, and this is the only use

    policy, problems, _ = parse_policy(MINIMAL + f"{key}: {json.dumps(value)}\n", name="p.yaml")
    assert (policy is None) == bool(problems)


def test_the_schema_in_the_repository_is_current() -> None:
    assert (ROOT / "policies" / "schema.json").read_text() == schema_text(), (
        "run `python -m adaptd.daemon.policy.schema`"
    )


def test_every_policy_in_the_repository_loads() -> None:
    folder = ROOT / "policies"
    paths = sorted(folder.glob("*.yaml"))
    assert paths
    for path in paths:
        assert problems_of(path, folder) == []
