"""The reference of policy keys, docs/policy-keys.md, made from the policy model.

`python -m adaptd.daemon.policy.reference` writes it. It stands alone: no other process needs it.
"""

# JSON of any kind.
# pyright: reportUnknownArgumentType=false

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adaptd.daemon.policy.schema import policy_schema

PAGE = Path(__file__).resolve().parents[2] / "docs" / "policy-keys.md"
_HEAD = """# Policy keys

Every key of a policy file. Made by `python -m adaptd.daemon.policy.reference`.

"""


def reference_text() -> str:
    """Write Markdown: a table for each group of keys, in the order of the file."""
    schema = policy_schema()
    definitions = schema["$defs"]
    groups = list(_walk_groups("", schema, definitions))
    return _HEAD + "\n".join(_render_group(path, group, definitions) for path, group in groups)


def _walk_groups(
    path: str, group: dict[str, Any], definitions: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, group
    for key, value in group["properties"].items():
        name, repeated = _group_name(value)
        if name is not None:
            inner = f"{path}.{key}".lstrip(".") + ("[]" if repeated else "")
            yield from _walk_groups(inner, definitions[name], definitions)


def _group_name(value: dict[str, Any]) -> tuple[str | None, bool]:
    """Return the definition that a key holds, and True where it holds a list of them."""
    if "$ref" in value:
        return value["$ref"].rpartition("/")[2], False
    if "$ref" in value.get("items", {}):
        return value["items"]["$ref"].rpartition("/")[2], True
    for choice in value.get("anyOf", []):
        if "$ref" in choice:
            return choice["$ref"].rpartition("/")[2], False
    return None, False


def _render_group(path: str, group: dict[str, Any], definitions: dict[str, Any]) -> str:
    required = set(group.get("required", []))
    lines = [f"## `{path}`" if path else "## The file", ""]
    if path:
        lines += [_one_line(group.get("description", "")), ""]
    lines += ["| key | default | values | meaning |", "| --- | --- | --- | --- |"]
    for key, value in group["properties"].items():
        name, _ = _group_name(value)
        described = value.get("description") or (
            definitions[name].get("description", "") if name else ""
        )
        shown = "required" if key in required else _show_default(value, name)
        cells = (f"`{key}`", shown, _show_values(value), _one_line(described))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def _show_default(value: dict[str, Any], name: str | None) -> str:
    if "default" in value:
        return f"`{json.dumps(value['default'])}`"
    return "see below" if name and "anyOf" not in value else "none"


def _show_values(value: dict[str, Any]) -> str:
    kinds = value.get("anyOf") or [value]
    return " or ".join(dict.fromkeys(filter(None, map(_show_kind, kinds))))


def _show_kind(value: dict[str, Any]) -> str:
    if "$ref" in value:
        return "keys"
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if value.get("type") == "array":
        return f"list of {_show_kind(value['items'])}"
    if value.get("type") == "null":
        return ""
    examples = value.get("examples")
    like = f" such as `{examples[0]}`" if examples else ""
    return f"{value.get('type', 'value')}{like}{_show_bounds(value)}"


def _show_bounds(value: dict[str, Any]) -> str:
    words = {
        "minimum": "from {}",
        "exclusiveMinimum": "above {}",
        "maximum": "to {}",
        "exclusiveMaximum": "below {}",
    }
    found = [text.format(value[name]) for name, text in words.items() if name in value]
    return f" {' '.join(found)}" if found else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())


def main() -> None:
    """Write the page to the path given, or to its place in the repository."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    path.write_text(reference_text(), "utf-8")


if __name__ == "__main__":
    main()
