"""Writes policies/schema.json, with which editors complete and check policies.

It stands alone because it runs as a process: `python -m adaptd.daemon.policy.schema`.
"""

# JSON of any kind.
# pyright: reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from adaptd.daemon.policy.model import Policy
from adaptd.daemon.policy.values import write_duration

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_PATH = Path("policies/schema.json")


def policy_schema() -> dict[str, Any]:
    """Return the JSON Schema of a policy file."""
    head = {"$schema": _DIALECT, "title": "adaptd policy"}
    return head | _drop_noise(Policy.model_json_schema(schema_generator=_Generator))


class _Generator(GenerateJsonSchema):
    def encode_default(self, dft: Any) -> Any:
        """Write durations as people do."""
        return write_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


def _drop_noise(value: Any) -> Any:
    """Drop titles made from names, and defaults that are groups of keys."""
    if isinstance(value, list):
        return [_drop_noise(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if not _is_noise(key, item)}
    return {key: _drop_noise(item) for key, item in kept.items()}


def _is_noise(key: str, value: Any) -> bool:
    return (key == "title" and isinstance(value, str)) or (
        key == "default" and (isinstance(value, dict) or value is None)
    )


def schema_text() -> str:
    """Return the content of the schema file."""
    return json.dumps(policy_schema(), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the schema to the path given, or to its place in the repository."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else SCHEMA_PATH
    path.write_text(schema_text(), "utf-8")


if __name__ == "__main__":
    main()
