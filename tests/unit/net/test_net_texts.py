"""Routes, help, metrics, settings and migrations are as they were, or a change of them is told."""

import pytest

from tests.net.artifacts import all_allowed, as_json, differences, is_in_changelog, recorded
from tests.net.texts import all_texts


@pytest.mark.parametrize(
    "name",
    ["openapi", "help", "metrics", "settings", "migrations", "command_lines", "keys"],
)
def test_what_others_read_is_as_it_was(name: str) -> None:
    assert differences(name, all_texts()[name]()) == {}


def test_every_text_is_compared() -> None:
    assert {name for name in all_texts() if recorded(name)} == set(all_texts())


def test_every_difference_that_is_allowed_is_in_the_changelog() -> None:
    assert [one for one in all_allowed() if not is_in_changelog(one)] == []


def test_a_difference_is_found_by_its_place() -> None:
    known = recorded("metrics")
    changed = as_json(known)
    del changed["daemon"]["adaptd_ready"]
    changed["daemon"]["adaptd_new"] = {"labels": ["a"]}
    changed["gateway"]["adaptd_gateway_epoch"]["type"] = "counter"

    found = differences("metrics", changed)

    assert differences("metrics", known) == {}
    assert found == {
        "metrics/daemon/adaptd_new/labels/0": ("<missing>", "a"),
        "metrics/daemon/adaptd_ready/labels": ([], "<missing>"),
        "metrics/gateway/adaptd_gateway_epoch/type": ("gauge", "counter"),
    }
