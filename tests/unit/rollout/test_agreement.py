"""Whether publishing a restored store's routes would move traffic."""

import pytest

from adaptd.daemon.rollout.agreement import disagreements, names_in, numbers_of
from adaptd.daemon.wire.routes import Route, RouteTable

V1, V2 = "support@v1-aaaaaaaa", "support@v2-bbbbbbbb"


def a_table(epoch: int, **route: object) -> RouteTable:
    return RouteTable(epoch=epoch, base="base", routes={"support": Route(alias="support", **route)})


@pytest.mark.parametrize(
    ("stored", "followed"),
    [
        (a_table(5, live=V1), a_table(5, live=V1)),
        (a_table(5, live=V1), a_table(9, live=V1, ready=False)),  # started anew since
        (a_table(5, live=V2), a_table(4, live=V1)),  # the gateway missed the last table
    ],
)
def test_the_same_decisions_agree(stored: RouteTable, followed: RouteTable) -> None:
    assert disagreements(stored, [followed]) == []
    assert disagreements(stored, []) == []


@pytest.mark.parametrize(
    "followed",
    [
        a_table(9, live=V2, last_good=V1),  # promoted since
        a_table(9, live=V1),  # the canary was taken back since
        a_table(9, live=V1, canary=V2, canary_on=True, weight=0.5, rollout="r1"),
        a_table(5, live=None, canary=V2, canary_on=True, weight=0.25, rollout="r1"),
    ],
)
def test_what_was_decided_after_the_backup_is_found(followed: RouteTable) -> None:
    stored = a_table(5, live=V1, canary=V2, canary_on=True, weight=0.25, rollout="r1")
    [found] = disagreements(stored, [followed])
    assert "support: gateways follow live" in found.what
    assert not found.waits


def test_an_alias_that_only_one_side_knows_is_found() -> None:
    assert "nothing" in disagreements(None, [a_table(1, live=V1)])[0].what


def test_the_highest_number_of_each_alias_counts() -> None:
    table = a_table(1, live=V1, canary=V2)
    assert names_in(table) == {V1, V2}
    assert numbers_of([V1, V2, "other@v12-cccccccc", "base", "x"]) == {"support": 2, "other": 12}
