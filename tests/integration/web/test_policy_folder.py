"""A policy folder that cannot be checked: the daemon says so, and is not ready."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.daemon_world import ServedParts, settings_for
from tests.support.odd_files import ODD_FILES


@pytest.fixture
def served(tmp_path: Path, tiny_base: Path) -> Iterator[ServedParts]:
    with ServedParts(settings_for(tmp_path, tiny_base)) as parts:
        yield parts


def status(served: ServedParts) -> tuple[list[str], list[str]]:
    """Alerts, and parts that are not ready; `/readyz` tells the same parts."""
    headers = {"Authorization": f"Bearer {served.control_token}"}
    told = httpx.get(f"{served.url}/v1/status", headers=headers).json()
    parts = [part["part"] for part in told["not_ready"]]
    assert httpx.get(f"{served.url}/readyz").json()["not_ready"] == parts
    return [alert["what"] for alert in told["alerts"]], parts


def test_a_folder_that_cannot_be_checked_is_told_and_the_part_is_not_ready(
    served: ServedParts,
) -> None:
    folder = served.settings.policies_dir
    assert "policies" not in status(served)[1]
    aside = folder.rename(folder.with_name("aside"))
    ODD_FILES["circle of links"](folder)
    served.run(served.parts.policies.refresh())

    alerts, parts = status(served)
    assert any("it cannot be listed" in what for what in alerts)
    assert "policies" in parts

    folder.unlink()
    aside.rename(folder)
    served.run(served.parts.policies.refresh())
    alerts, parts = status(served)
    assert not any("listed" in what for what in alerts)
    assert "policies" not in parts


@pytest.mark.parametrize("kind", ODD_FILES)
def test_a_daemon_starts_beside_an_odd_file_and_tells_of_it(
    kind: str, tmp_path: Path, tiny_base: Path
) -> None:
    settings = settings_for(tmp_path, tiny_base)
    ODD_FILES[kind](settings.policies_dir / "odd.yaml")
    with ServedParts(settings) as parts:
        alerts, waiting = status(parts)
    assert any("odd.yaml:1: " in what for what in alerts)
    assert "policies" not in waiting


def test_a_token_file_that_cannot_be_read_is_told(served: ServedParts) -> None:
    path = served.settings.tokens_path
    assert not any("tokens" in what for what in status(served)[0])
    path.unlink()
    ODD_FILES["folder"](path)
    assert any("tokens.json: the tokens cannot be read" in what for what in status(served)[0])
