"""One API over a store in memory for the tests of a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon_world import ServedParts, settings_for


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[ServedParts]:
    with ServedParts(settings_for(tmp_path_factory.mktemp("api"), tiny_base)) as parts:
        yield parts
