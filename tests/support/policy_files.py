"""A policy folder to break in tests."""

from pathlib import Path

MINIMAL = "version: 1\nmodel: support\nbase: tiny\n"
GOLDEN_LINE = (
    '{"messages": [{"role": "user", "content": "Where is my card?"}], "reference": "card"}\n'
)
FULL = """\
version: 1
model: support                      # the alias applications use
base: smollm2-135m
timezone: Europe/Madrid
select:
  where: "tags['product'] = 'cards' AND time > now() - INTERVAL 30 DAY"
  use: [correction, rating]
  caps: {per_user: 20, per_user_share: 0.01, min_age: 1h}
curate:
  holdout: {share: 0.2, by: conversation, at_least: 100, golden: golden/support.jsonl}
train_when:
  any: [{new_examples: 200}, {negative_share: {above: 0.15, over: 6h, at_least: 100}},
        {cron: "0 3 * * *"}]
  cooldown: 6h
train: {method: auto, rank: 16, start_from: live, max_time: 2h}
gate:
  must_improve: [{metric: exact_match, on: fresh}]
  must_not_drop: [{metric: exact_match, on: golden, by: 3 points},
                  {metric: nll, on: fresh, by: 0.05}]
  alpha: 0.05
rollout:
  split: conversation
  steps: [{weight: 5%, at_least: 30m, units: 200}, {weight: 25%}, {weight: 50%}, {weight: 95%}]
  guard: {watch: [negative, error, latency], promote_on: [negative], alpha: 0.05, ratio: 1.5,
          maturity: 24h}
  holdback: 5%
  when_inconclusive: hold
  approval: automatic               # or manual
  keep_watching: 7d
"""


def write_policy(folder: Path, text: str = MINIMAL, *, name: str = "support.yaml") -> Path:
    """Write a policy file and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def write_golden(folder: Path, content: str = GOLDEN_LINE) -> Path:
    path = folder / "golden" / "support.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path
