"""Adapter directories: whole or refused, numbered above anything there is."""

import json
from pathlib import Path

import pytest

from adaptd.daemon.training.adapter_files import (
    CONFIG,
    WEIGHTS,
    Manifest,
    check_files,
    content_hash,
    file_hash,
    find_staged,
    highest_number,
    place_adapter,
    seal_adapter,
    tensor_names,
)
from adaptd.daemon.wire.errors import AdaptdError
from tests.support.tiny_model import make_tiny_adapter


def a_finished_adapter(run: Path, seed: int = 1) -> Path:
    fresh = make_tiny_adapter(run / ".adapter", seed=seed)
    config = json.loads((fresh / CONFIG).read_text())
    manifest = Manifest(
        content_hash=content_hash((fresh / WEIGHTS).read_bytes(), config),
        base_digest="b",
        run_id="run-1",
        model="support",
        base="tiny",
        parent=None,
        snapshot_id="s",
        snapshot_hash="h",
        seed=1,
        job={},
        versions={},
        figures={},
        files={name: file_hash(fresh / name) for name in (CONFIG, WEIGHTS)},
    )
    return seal_adapter(fresh, manifest)


def test_a_finished_adapter_waits_under_its_content_hash(tmp_path: Path) -> None:
    path = a_finished_adapter(tmp_path)

    manifest = check_files(path)
    assert path.name == f"adapter-{manifest.content_hash[:16]}"
    assert find_staged(tmp_path) == path
    assert not (tmp_path / ".adapter").exists()


def test_the_content_hash_is_of_effect_not_of_provenance(tmp_path: Path) -> None:
    config = {"r": 8, "lora_alpha": 16, "target_modules": ["v_proj", "q_proj"]}
    same = config | {"base_model_name_or_path": "x", "target_modules": ["q_proj", "v_proj"]}

    assert content_hash(b"w", config) == content_hash(b"w", same)
    assert content_hash(b"w", config) != content_hash(b"w", config | {"lora_alpha": 8})
    assert content_hash(b"w", config) != content_hash(b"v", config)


def test_a_changed_or_missing_file_is_noticed(tmp_path: Path) -> None:
    path = a_finished_adapter(tmp_path)
    (path / CONFIG).chmod(0o644)
    (path / CONFIG).write_text((path / CONFIG).read_text() + " ")
    with pytest.raises(AdaptdError, match=f"{CONFIG} is not what was written"):
        check_files(path)

    (path / WEIGHTS).unlink()
    with pytest.raises(AdaptdError, match="cannot be read"):
        check_files(path)


def test_placing_moves_once_makes_read_only_and_can_be_repeated(tmp_path: Path) -> None:
    target = tmp_path / "adapters" / "support@v1-00000000"

    place_adapter(a_finished_adapter(tmp_path / "run"), target)
    place_adapter(None, target)

    assert find_staged(tmp_path / "run") is None
    modes = {path.stat().st_mode & 0o777 for path in target.iterdir()}
    assert modes == {0o444}
    assert target.stat().st_mode & 0o777 == 0o555


def test_nothing_to_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(AdaptdError, match="its files are gone"):
        place_adapter(None, tmp_path / "support@v1-00000000")


def test_numbers_are_found_by_alias(tmp_path: Path) -> None:
    names = ("support@v9-00000000", "support@v11-00000000", "sales@v40-00000000", "notes")
    for name in names:
        (tmp_path / name).mkdir()

    assert highest_number(tmp_path, "support") == 11
    assert highest_number(tmp_path, "other") == 0
    assert highest_number(tmp_path / "nowhere", "support") == 0


def test_tensor_names_are_read_without_the_tensors(tmp_path: Path) -> None:
    names = tensor_names(make_tiny_adapter(tmp_path / "a"))
    assert len(names) == 4 * 2 * 2
    assert all(".lora_" in name for name in names)
