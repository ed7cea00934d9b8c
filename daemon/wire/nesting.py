"""How deep JSON nests. Pure; the same for clients' requests and for events."""

from typing import Any


def nests_deeper(value: Any, limit: int) -> bool:
    """True where lists and objects nest in more than `limit` levels; `[]` is one, a number none."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        if not level:
            return False
        level = [child for parent in level for child in _containers(parent)]
    return bool(level)


def _containers(parent: dict[str, Any] | list[Any]) -> list[dict[str, Any] | list[Any]]:
    children = parent.values() if isinstance(parent, dict) else parent
    return [child for child in children if isinstance(child, dict | list)]
