"""Half a letter in a policy or a golden file is a problem at its line, wherever it stands."""

import os
from pathlib import Path

import pytest

from adaptd.daemon.policy.load import Loaded, load_policy
from adaptd.daemon.wire.texts import is_encodable
from tests.support.policy_files import FULL, GOLDEN_LINE, MINIMAL, write_golden, write_policy

HALF = r"\ud800"
SAID = "half a letter"


def load(folder: Path, text: str) -> Loaded:
    return load_policy(write_policy(folder, text), folder=folder)


@pytest.mark.parametrize(
    "line",
    [
        f'alpha: "{HALF}"',
        f'base: "{HALF}"',
        f'timezone: "a{HALF}"',
        f"select: {{where: \"x = '{HALF}'\"}}",
        f'select: {{use: [correction, "{HALF}"]}}',
        f'"{HALF}": 1',
        f'train: {{"rank{HALF}": 8}}',
        r'gate: {alpha: "\udc00"}',
        r'gate: {alpha: "\ud83d\ude00"}',
        f'gate: {{alpha: ["{HALF}"]}}',
        f'curate: {{holdout: {{golden: "{HALF}.jsonl"}}}}',
        f'rollout: {{steps: [{{weight: "{HALF}"}}]}}',
        f'train_when: {{any: [{{cron: "{HALF}"}}]}}',
    ],
)
def test_half_a_letter_is_refused_at_its_line(line: str, tmp_path: Path) -> None:
    found = load(tmp_path, f"version: 1\nmodel: support\n{line}\n")

    assert found.policy is None
    assert any(SAID in p.problem and p.where.endswith(".yaml:3") for p in found.problems)
    assert all(is_encodable(str(problem)) for problem in found.problems)


@pytest.mark.parametrize(
    "text",
    [
        f"{MINIMAL}# a comment with {HALF} is only a comment\n",
        f"version: 1\nmodel: support\nbase: tiny  # {HALF}\n",
        f"{MINIMAL}select: {{where: 'x = {HALF}'}}\n",  # single quotes: plain letters
    ],
)
def test_what_only_looks_like_half_a_letter_is_text(text: str, tmp_path: Path) -> None:
    assert load(tmp_path, text).problems == ()


@pytest.mark.parametrize(
    "line",
    [
        GOLDEN_LINE.replace("card?", r"card\ud800?"),
        GOLDEN_LINE.replace('"card"', r'"\udfff"'),
        GOLDEN_LINE.replace('"reference"', r'"id": "\ud800", "reference"'),
        GOLDEN_LINE.replace('"role"', r'"\ud800": 1, "role"'),
    ],
)
def test_half_a_letter_in_a_golden_file_is_refused_at_its_line(line: str, tmp_path: Path) -> None:
    golden = write_golden(tmp_path, GOLDEN_LINE + line)

    found = load(tmp_path, FULL)

    assert [(p.where, SAID in p.problem) for p in found.problems] == [(f"{golden}:2", True)]


def test_a_policy_whose_name_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"support\xff.yaml")
    path.write_text(MINIMAL)

    [problem] = load_policy(path, folder=tmp_path).problems

    assert "not UTF-8" in problem.problem
    assert is_encodable(str(problem))
