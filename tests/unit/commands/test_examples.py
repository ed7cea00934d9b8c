"""What `adaptd init` writes can be used as it is."""

import tomllib
from pathlib import Path

import pytest

from adaptd.daemon.doctor.policies import check_policy
from adaptd.daemon.doctor.traffic import Seen
from adaptd.daemon.policy.load import Limits
from adaptd.daemon.settings import Settings, load_settings

EXAMPLES = Path(__file__).resolve().parents[3] / "daemon" / "commands" / "examples"
LIMITS = Limits(bases=frozenset({"smollm2-135m"}), max_rank=8)


def test_the_example_settings_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (EXAMPLES / "adaptd.toml").read_text()
    (tmp_path / "adaptd.toml").write_text(text)
    settings = load_settings()
    assert "smollm2-135m" in settings.bases
    given = tomllib.loads(text)
    assert settings.upstream.max_loras == given["upstream"]["max_loras"]
    assert set(given) <= set(Settings.model_fields)


def test_the_example_policy_has_no_problem_and_its_gate_can_conclude() -> None:
    found = check_policy(EXAMPLES / "support.yaml", folder=EXAMPLES, limits=LIMITS, seen=None)
    assert found.problems == []
    assert {step.words for step in found.steps} == {"unknown: no traffic seen"}


def test_steps_say_how_long_they_need_at_the_traffic_seen() -> None:
    seen = Seen(units_per_hour=500, negative_share=0.1)
    found = check_policy(EXAMPLES / "support.yaml", folder=EXAMPLES, limits=LIMITS, seen=seen)
    seconds = [step.seconds for step in found.steps]
    assert all(value is not None and value > 24 * 3600 for value in seconds)
    assert seconds[0] > seconds[2], "a small canary needs longer than an even split"


def test_a_gate_that_can_never_conclude_is_refused_with_its_line(tmp_path: Path) -> None:
    text = (EXAMPLES / "support.yaml").read_text()
    golden = '{"messages": [{"role": "user", "content": "hi"}], "reference": "ho"}\n'
    (tmp_path / "few.jsonl").write_text(golden)
    text = text.replace("at_least: 100}", "at_least: 100, golden: few.jsonl}")
    text = text.replace("exact_match, on: fresh, by: 5 points", "exact_match, on: golden, by: 0.01")
    path = tmp_path / "support.yaml"
    path.write_text(text)
    found = check_policy(path, folder=tmp_path, limits=LIMITS, seen=None)
    assert found.problems
    line = next(n for n, row in enumerate(text.splitlines(), 1) if row.startswith("gate:"))
    assert all(problem.startswith(f"{path}:{line}: ") for problem in found.problems)
