from pathlib import Path

import pytest

from adaptd.daemon.wire.errors import SettingsError
from adaptd.serving.gateway.settings import (
    CONFIG_VARIABLE,
    GatewaySettings,
    load_settings,
    write_settings,
)


def some_settings(home: Path) -> GatewaySettings:
    return GatewaySettings(
        gateway="g1",
        tokens_path=home / "tokens.json",
        control_token_path=home / "control.token",
        secret_path=home / "secret.key",
        table_path=home / "table.json",
        spool_dir=home / "spool",
    )


def test_settings_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_settings(tmp_path / "gateway.json", some_settings(tmp_path))

    found = load_settings({CONFIG_VARIABLE: str(tmp_path / "gateway.json")})

    assert found == some_settings(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "truncated"),
        ("{}", "gateway"),
        ('{"gateway": "g", "colour": 1}', "colour"),
        ('{"gateway": "g", "spool_dir": 5}', "spool_dir"),
    ],
)
def test_wrong_settings_name_the_file_and_the_field(
    tmp_path: Path, content: str, expected: str
) -> None:
    path = tmp_path / "gateway.json"
    path.write_text(content)

    with pytest.raises(SettingsError) as caught:
        load_settings({CONFIG_VARIABLE: str(path)})
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)


def test_settings_that_are_not_there_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=CONFIG_VARIABLE):
        load_settings({})
    with pytest.raises(SettingsError, match=r"no\.json"):
        load_settings({CONFIG_VARIABLE: str(tmp_path / "no.json")})
