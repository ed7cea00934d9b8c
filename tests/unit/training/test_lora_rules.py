"""The adapters that vLLM would refuse, found before it does."""

from typing import Any

import pytest

from adaptd.daemon.training.lora_rules import ServedLora, config_problems, key_problems

SERVED = ServedLora(max_rank=8, targets=("q_proj", "v_proj"))
GOOD: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
STEM = "base_model.model.model.layers.0.self_attn"


def keys(*names: str) -> list[str]:
    return [f"{STEM}.{name}.weight" for name in names]


def test_a_plain_adapter_passes() -> None:
    assert config_problems(GOOD | {"bias": "none", "init_lora_weights": True}, SERVED) == []
    assert key_problems(keys("q_proj.lora_A", "q_proj.lora_B"), SERVED) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"r": 16}, "above the server's max_lora_rank of 8"),
        ({"r": 0}, "above 0"),
        ({"rank_pattern": {"q_proj": 32}}, "rank 32"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"target_modules": ["q_proj", "o_proj"]}, "o_proj are not served"),
        ({"target_modules": "all-linear"}, "by name"),
        ({"target_modules": []}, "by name"),
    ],
)
def test_a_config_vllm_refuses_is_told(change: dict[str, Any], words: str) -> None:
    (problem,) = config_problems(GOOD | change, SERVED)
    assert words in problem


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "no tensor"),
        (["q_proj.lora_A"], "only one of"),
        (["q_proj.lora_A", "q_proj.lora_B", "q_proj.lora_magnitude_vector"], "neither"),
        (["o_proj.lora_A", "o_proj.lora_B"], "not served"),
    ],
)
def test_tensors_vllm_refuses_or_ignores_are_told(names: list[str], words: str) -> None:
    assert words in " ".join(key_problems(keys(*names), SERVED))
