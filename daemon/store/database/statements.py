"""SQL lives in sql/*.sql; each statement opens with a line `-- name: verb_noun`."""

import re
from functools import cache
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


@cache
def statements(file: str) -> dict[str, str]:
    """The named statements of sql/{file}.sql."""
    return split_statements(
        (resources.files("adaptd.daemon.store") / "sql" / f"{file}.sql").read_text("utf-8")
    )


def split_statements(text: str) -> dict[str, str]:
    parts = _NAME.split(text)[1:]
    return {
        name: body.strip().rstrip(";") for name, body in zip(parts[::2], parts[1::2], strict=True)
    }
