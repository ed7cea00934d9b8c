from pathlib import Path

import pytest

from adaptd.daemon.domain.bases import write_digest
from adaptd.daemon.training.worker import base_model
from adaptd.daemon.wire.errors import AdaptdError
from tests.support.tiny_model import make_tiny_base


def test_the_gguf_file_is_found_without_importing_its_package() -> None:
    assert base_model.find_gguf().name == "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_a_base_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base")
    digest = write_digest(base)

    assert base_model.prepare_base(base) == digest


def test_a_model_with_another_template_is_refused(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path)
    (base / "chat_template.jinja").write_text("[INST] {{ messages }} [/INST]")

    with pytest.raises(AdaptdError, match=r"lacks <\|im_start\|>"):
        base_model._check_template(base)
