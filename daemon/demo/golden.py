"""Write the demo's golden file: `python -m adaptd.daemon.demo.golden FILE.jsonl`.

Reviewed messages of every queue, the two that open later included: operations prepared them.
"""

import json
import random
import sys
from pathlib import Path

from adaptd.daemon.demo.texts import QUEUES, SYSTEM_PROMPT, distinct

GOLDEN_SEED = 20261122
ITEMS_PER_QUEUE = 14


def golden_texts() -> set[str]:
    """The normalised texts of the golden file, for customers to stay away from."""
    taken: set[str] = set()
    _draw_item(taken)
    return taken


def _draw_item(taken: set[str]) -> list[dict[str, object]]:
    rng = random.Random(GOLDEN_SEED)  # noqa: S311 - made-up texts, no secret
    items: list[dict[str, object]] = []
    for queue in QUEUES:
        source = distinct(rng, (queue,), taken)
        for number in range(ITEMS_PER_QUEUE):
            messages = [
                {"role": "system", "content": SYSTEM_PROMPT},
                {"role": "user", "content": next(source).text},
            ]
            items.append({"id": f"{queue}-{number:02}", "messages": messages, "reference": queue})
    return items


def golden_file() -> str:
    """The whole file."""
    lines = [json.dumps(item, ensure_ascii=False) for item in _draw_item(set())]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the file named on the command line."""
    Path(sys.argv[1]).write_text(golden_file())


if __name__ == "__main__":
    main()
