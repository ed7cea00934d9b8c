import json
from pathlib import Path

from tests.support.tiny_model import make_tiny_adapter, make_tiny_base


def test_the_tiny_base_is_the_same_every_time(tmp_path: Path) -> None:
    one, two = make_tiny_base(tmp_path / "one"), make_tiny_base(tmp_path / "two")

    for file in ("model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"):
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_tiny_adapters_differ_by_seed_and_name_their_modules(tmp_path: Path) -> None:
    one = make_tiny_adapter(tmp_path / "one", seed=1)
    two = make_tiny_adapter(tmp_path / "two", seed=2)

    weights = "adapter_model.safetensors"
    assert (one / weights).read_bytes() != (two / weights).read_bytes()
    assert json.loads((one / "adapter_config.json").read_text())["target_modules"] == [
        "q_proj",
        "v_proj",
    ]
