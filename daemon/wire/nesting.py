"""Depth of JSON. Pure; the same rule for clients' requests and for events.

It stands alone because gateway and consumers both judge by it.
"""

# JSON of any kind.
# pyright: reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from typing import Any


def nests_deeper(value: Any, limit: int) -> bool:
    """Say whether lists and objects nest in more than `limit` levels; `[]` is one level."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        if not level:
            return False
        level = [child for parent in level for child in _list_containers(parent)]
    return bool(level)


def _list_containers(parent: dict[str, Any] | list[Any]) -> list[dict[str, Any] | list[Any]]:
    children = parent.values() if isinstance(parent, dict) else parent
    return [child for child in children if isinstance(child, dict | list)]
