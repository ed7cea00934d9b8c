"""The rules by which vLLM refuses a LoRA adapter, checked before training and publication. Pure.

Read from vLLM 0.32 (`lora/peft_helper.py`, `lora/lora_model.py`, `config/lora.py`).
"""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

_SIDES = ("lora_A.weight", "lora_B.weight")
# Each of these changes the adapter's effect, and vLLM refuses it or silently leaves it out.
_UNSUPPORTED = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "alora_invocation_tokens",
    "layer_replication",
    "use_bdlora",
    "use_qalora",
    "trainable_token_indices",
)
# These only set the first weights. PiSSA and its kin change the base as well.
_PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")


class ServedLora(msgspec.Struct, frozen=True, kw_only=True):
    """The limits that the server was started with: no larger rank and no other module."""

    max_rank: int
    targets: Collection[str]


def config_problems(config: Mapping[str, Any], served: ServedLora) -> list[str]:
    """The reasons for which the server would refuse an adapter_config.json."""
    problems = [f"{name} is not supported by vLLM" for name in _UNSUPPORTED if config.get(name)]
    if config.get("bias", "none") != "none":
        problems.append(f"bias is {config['bias']!r}, vLLM takes only 'none'")
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
        problems.append(f"init_lora_weights {init!r} changes the base's weights")
    return problems + _rank_problems(config, served) + _target_problems(config, served)


def key_problems(keys: Collection[str], served: ServedLora) -> list[str]:
    """The reasons for which the server would refuse these tensors, or serve the base for them."""
    if not keys:
        return ["it holds no tensor: vLLM would load it and serve the base"]
    problems = []
    modules: dict[str, set[str]] = {}
    for key in sorted(keys):
        side = next((side for side in _SIDES if key.endswith(f".{side}")), None)
        if side is None:
            problems.append(f"tensor {key} is neither lora_A nor lora_B")
        else:
            modules.setdefault(key.removesuffix(f".{side}"), set()).add(side)
    for module, sides in modules.items():
        if len(sides) < len(_SIDES):
            problems.append(f"module {module} has only one of lora_A and lora_B")
        if module.rsplit(".", 1)[-1] not in served.targets:
            problems.append(f"module {module} is not served with LoRA")
    return problems


def _rank_problems(config: Mapping[str, Any], served: ServedLora) -> list[str]:
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    if not all(isinstance(rank, int) and rank > 0 for rank in ranks):
        return [f"rank must be a whole number above 0, not {ranks[0]!r}"]
    if max(ranks) > served.max_rank:
        return [f"rank {max(ranks)} is above the server's max_lora_rank of {served.max_rank}"]
    return []


def _target_problems(config: Mapping[str, Any], served: ServedLora) -> list[str]:
    targets = config.get("target_modules")
    if not targets or isinstance(targets, str):
        return ["target_modules must list the modules by name"]
    if unknown := sorted(set(targets) - set(served.targets)):
        return [
            f"target modules {', '.join(unknown)} are not served with LoRA"
            f" (the server has {', '.join(sorted(served.targets))})"
        ]
    return []
