"""The installation's secret is whole or refused, and one for all who ask at once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adaptd.daemon.wire.errors import SettingsError
from adaptd.daemon.wire.signing import load_secret


def test_a_secret_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "home" / "secret.key"

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(load_secret, [path] * 8))

    assert found == {path.read_bytes()}
    assert len(path.read_bytes()) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["secret.key"], "nothing is left over"


@pytest.mark.parametrize("torn", [b"", b"short", b"x" * 33])
def test_a_torn_secret_is_refused_and_not_quoted(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "secret.key"
    path.write_bytes(torn)

    with pytest.raises(SettingsError, match=f"it holds {len(torn)} bytes, not 32") as refused:
        load_secret(path)

    assert "short" not in str(refused.value)
    assert path.read_bytes() == torn, "what is left of it is not ours to throw away"
