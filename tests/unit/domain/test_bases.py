import json
from pathlib import Path

import pytest

from adaptd.daemon.domain.bases import (
    DIGEST_FILE,
    base_digest,
    chat_template,
    template_digest,
    write_digest,
)
from adaptd.daemon.wire.errors import SettingsError
from tests.support.tiny_model import CHAT_TEMPLATE, make_tiny_base


def test_two_copies_of_a_base_have_one_digest(tmp_path: Path) -> None:
    one, two = make_tiny_base(tmp_path / "one"), make_tiny_base(tmp_path / "two")

    assert base_digest(one) == base_digest(two)
    assert template_digest(one) == template_digest(two)


def test_other_weights_or_another_config_are_another_base(tmp_path: Path) -> None:
    first = make_tiny_base(tmp_path / "first")
    weights = make_tiny_base(tmp_path / "weights", seed=1)
    config = make_tiny_base(tmp_path / "config")
    (config / "config.json").write_text((config / "config.json").read_text() + "\n")

    assert len({base_digest(base) for base in (first, weights, config)}) == 3


def test_changed_weights_are_noticed_though_a_digest_lies_beside_them(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path)
    before = write_digest(base)
    assert base_digest(base) == before

    make_tiny_base(tmp_path, seed=1)

    assert (base / DIGEST_FILE).exists()
    assert base_digest(base) != before


def test_the_digest_left_by_the_conversion_is_believed_while_files_are_unchanged(
    tmp_path: Path,
) -> None:
    base = make_tiny_base(tmp_path)
    write_digest(base)
    content = json.loads((base / DIGEST_FILE).read_text())
    (base / DIGEST_FILE).write_text(json.dumps(content | {"base": "from the file"}))

    assert base_digest(base) == "from the file"


def test_the_template_counts_wherever_it_is_kept(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path)
    in_its_file = template_digest(base)
    (base / "chat_template.jinja").unlink()

    assert chat_template(base) == CHAT_TEMPLATE
    assert template_digest(base) == in_its_file

    (base / "chat_template.jinja").write_text("another")
    assert template_digest(base) != in_its_file


def test_a_directory_without_a_model_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"config\.json"):
        base_digest(tmp_path)
    with pytest.raises(SettingsError, match="chat template"):
        template_digest(tmp_path)
