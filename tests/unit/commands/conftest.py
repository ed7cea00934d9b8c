"""A daemon's API on a port, and the commands pointed at it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import RunCommand, run_command
from tests.support.daemon_world import ServedParts, environment, settings_for


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[ServedParts]:
    with ServedParts(settings_for(tmp_path_factory.mktemp("api"), tiny_base)) as parts:
        yield parts


@pytest.fixture
def run(served: ServedParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunCommand:
    """Commands that find this API by their settings."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment(served.settings).items():
        monkeypatch.setenv(name, value)
    return run_command
