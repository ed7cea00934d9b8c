"""Log events are literals in snake_case, one meaning each, and docs/logs.md lists them."""

import re
from collections import defaultdict

from tests.support.log_events import PAGE, log_calls, page_text


def test_events_are_snake_case_literals() -> None:
    wrong = [
        f"{call.file}:{call.line} {call.event!r}"
        for call in log_calls()
        if call.event is None or not re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", call.event)
    ]
    assert wrong == []


def test_an_event_has_one_level_and_one_place() -> None:
    places: dict[str | None, set[tuple[str, str]]] = defaultdict(set)
    for call in log_calls():
        places[call.event].add((call.level, call.file))
    assert {event: found for event, found in places.items() if len(found) > 1} == {}


def test_the_page_lists_them() -> None:
    remedy = "run `python -m tests.support.log_events`"
    assert PAGE.read_text("utf-8") == page_text(), remedy
