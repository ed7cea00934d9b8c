"""docs/settings.md and the settings say the same, both ways."""

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_settings import BaseSettings

from adaptd.daemon.settings import Settings, UpstreamSettings

PAGE = Path(__file__).resolve().parents[3] / "docs" / "settings.md"
ROW = re.compile(r"^\| `([a-z_.]+)` \| `(ADAPTD_[A-Z_]+)` \| (.+?) \| (.+) \|$", re.MULTILINE)


def documented() -> dict[str, tuple[str, str]]:
    return {row[1]: (row[2], row[3]) for row in ROW.finditer(PAGE.read_text())}


def known() -> dict[str, tuple[str, str]]:
    keys = _keys(Settings, "", "ADAPTD_")
    del keys["upstream"]
    return keys | _keys(UpstreamSettings, "upstream.", "ADAPTD_UPSTREAM__")


def _keys(
    model: type[BaseModel] | type[BaseSettings], path: str, prefix: str
) -> dict[str, tuple[str, str]]:
    return {
        f"{path}{name}": (
            f"{prefix}{name.upper()}",
            _shown(field.get_default(call_default_factory=True)),
        )
        for name, field in model.model_fields.items()
    }


def _shown(default: Any) -> str:
    if default is None:
        return "none"
    if isinstance(default, (bool, list, tuple, dict)):
        return f"`{json.dumps(default, separators=(',', ':'))}`"
    return f"`{float(default) if isinstance(default, float) else default}`"


def test_every_setting_is_documented_with_its_variable_and_default() -> None:
    pages = documented()
    wrong = {
        key: (value, pages.get(key))
        for key, value in known().items()
        if pages.get(key) != value and not _same_number((value, pages.get(key)))
    }
    assert wrong == {}


def _same_number(pair: tuple[tuple[str, str], tuple[str, str] | None]) -> bool:
    """`10` in the code, read as a float, is `10.0` on the page."""
    value, page = pair
    if page is None or value[0] != page[0]:
        return False
    try:
        return float(value[1].strip("`")) == float(page[1].strip("`"))
    except ValueError:
        return False


def test_every_documented_setting_exists() -> None:
    assert set(documented()) - set(known()) == set()
