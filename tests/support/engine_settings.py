"""Settings of a vLLM server as the daemon makes them, with the operator's defaults."""

from pathlib import Path
from typing import Any

import msgspec

from adaptd.daemon.settings import Settings
from adaptd.daemon.wiring.installation import Base, engine_settings
from adaptd.serving.host.launch import EngineSettings


def make_engine_settings(*, base_name: str, base_dir: Path, **changes: Any) -> EngineSettings:
    """Make settings without a gateway, unless `changes` name its file."""
    defaults = Settings.model_construct()
    made = engine_settings(defaults, Base(base_name, base_dir))
    return msgspec.structs.replace(made, **{"gateway_config": None} | changes)
