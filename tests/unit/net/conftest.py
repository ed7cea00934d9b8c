"""A copy of the installation that an earlier release left."""

from pathlib import Path

import pytest

from tests.net.artifacts import unpack


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """Its folder: `home` and `policies` lie in it."""
    return unpack("installation", tmp_path / "installation")
