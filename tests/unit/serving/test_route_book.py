from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptd.daemon.wire.errors import RefusedError
from adaptd.daemon.wire.identity import MAX_NAME, own_name
from adaptd.daemon.wire.routes import Arm, Route, RouteTable, choose
from adaptd.daemon.wire.tokens import Principal
from adaptd.serving.gateway.refusals import RefusalError
from adaptd.serving.gateway.route_book import RouteBook, live_instead, unit_of

SHOP = Principal(id="t", tenant="shop", scopes=frozenset({"chat"}))
V1, V2 = "support@v1-11111111", "support@v2-22222222"
shares = st.floats(0, 1)
units = st.text(min_size=1)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def a_table(epoch: int, *, live: str | None = V1, lease_s: float = 5) -> RouteTable:
    routes = {"support": Route(alias="support", live=live)}
    return RouteTable(epoch=epoch, base="tiny", lease_s=lease_s, routes=routes)


@given(units, shares, shares)
def test_a_higher_weight_only_adds_units_to_the_canary(unit: str, one: float, two: float) -> None:
    low, high = sorted((one, two))
    route = Route(alias="support", live=V1, canary=V2, canary_on=True, salt="r")

    def arm(weight: float) -> Arm:
        return choose(msgspec.structs.replace(route, weight=weight), unit, lease_held=True).arm

    if arm(low) == Arm.CANARY:
        assert arm(high) == Arm.CANARY
    assert arm(0) == Arm.LIVE
    assert arm(1) == Arm.CANARY


@given(units, shares)
def test_without_the_lease_nobody_gets_the_canary(unit: str, weight: float) -> None:
    route = Route(alias="support", live=V1, canary=V2, canary_on=True, weight=weight, salt="r")

    choice = choose(route, unit, lease_held=False)

    assert (choice.adapter, choice.arm, choice.weight) == (V1, Arm.LIVE, 0.0)


@given(units, st.floats(0.01, 0.5), st.floats(0.5, 0.95))
def test_units_held_back_were_not_in_the_last_step_before(
    unit: str, holdback: float, weight: float
) -> None:
    promoted = Route(alias="support", live=V2, last_good=V1, holdback=holdback, salt="r")
    step = Route(alias="support", live=V1, canary=V2, canary_on=True, weight=weight, salt="r")

    if weight <= 1 - holdback and choose(promoted, unit, lease_held=True).arm == Arm.HOLDBACK:
        assert choose(step, unit, lease_held=True).arm == Arm.LIVE


@pytest.mark.parametrize(
    "route",
    [
        Route(alias="support", live=V1, canary=V2, canary_on=True, weight=0.5, salt="r"),
        Route(alias="support", live=V2, last_good=V1, holdback=0.5, salt="r"),
    ],
)
def test_while_the_host_lacks_a_version_neither_arm_is_logged_with_a_weight(
    tmp_path: Path, route: Route
) -> None:
    book = RouteBook(tmp_path / "table.json")
    book.apply(a_table(1))
    before = [book.assign(route, str(unit)) for unit in range(40)]
    assert {choice.weight for choice in before} == {0.5}
    beside_live = next(choice for choice in before if choice.adapter != route.live)

    book.note_missing(beside_live)
    book.note_answered(beside_live)  # a long answer that began before
    meanwhile = [book.assign(route, str(unit)) for unit in range(40)]
    assert {choice.weight for choice in meanwhile} == {0.0}
    assert [choice.arm for choice in meanwhile] == [choice.arm for choice in before]

    book.note_answered(live_instead(route))
    assert {book.assign(route, str(unit)).weight for unit in range(40)} == {0.0}
    book.note_answered(msgspec.structs.replace(beside_live, weight=0.0))
    assert [book.assign(route, str(unit)) for unit in range(40)] == before


def test_the_lease_holds_from_the_last_word_of_the_daemon(tmp_path: Path) -> None:
    clock = Clock()
    book = RouteBook(tmp_path / "table.json", clock=clock)
    assert not book.lease_held()
    assert book.apply(a_table(1))
    clock.now += 4
    assert not book.apply(a_table(1))  # heartbeat
    clock.now += 4.9
    assert book.lease_held()
    clock.now += 0.2
    assert not book.lease_held()
    assert book.heard


def test_an_epoch_never_goes_back_or_changes_its_meaning(tmp_path: Path) -> None:
    book = RouteBook(tmp_path / "table.json")
    book.apply(a_table(5))
    for wrong in (a_table(4), a_table(5, live=V2), a_table(5, lease_s=9)):
        with pytest.raises(RefusedError, match="does not follow 5"):
            book.apply(wrong)
    assert book.table == a_table(5)
    book.apply(a_table(6, live=V2))
    assert book.epoch == 6


def test_a_saved_table_comes_back_without_a_lease_and_keeps_its_epoch(tmp_path: Path) -> None:
    first = RouteBook(tmp_path / "table.json")
    first.apply(a_table(5))
    assert not first.saved
    first.save()
    assert first.saved

    second = RouteBook(tmp_path / "table.json")
    second.load()

    assert second.table == a_table(5)
    assert not second.lease_held()
    assert not second.heard
    with pytest.raises(RefusedError):
        second.apply(a_table(4))
    assert not second.apply(a_table(5))
    assert second.lease_held()


@pytest.mark.parametrize(
    ("model", "status"), [("support", None), ("sales", 404), (V1, 404), ("tiny", 404), ("", 404)]
)
def test_only_aliases_of_the_table_are_found(
    tmp_path: Path, model: str, status: int | None
) -> None:
    book = RouteBook(tmp_path / "table.json")
    book.apply(a_table(1))
    if status is None:
        assert book.find(model, SHOP).alias == model
        return
    with pytest.raises(RefusalError) as caught:
        book.find(model, SHOP)
    assert caught.value.status == status


def test_an_alias_is_not_ready_before_the_first_table_or_before_live_is(tmp_path: Path) -> None:
    book = RouteBook(tmp_path / "table.json")
    with pytest.raises(RefusalError) as no_table:
        book.find("support", SHOP)
    route = Route(alias="support", live=V1, ready=False)
    book.apply(RouteTable(epoch=1, base="tiny", routes={"support": route}))
    with pytest.raises(RefusalError) as not_ready:
        book.find("support", SHOP)

    assert (no_table.value.status, not_ready.value.status) == (503, 503)
    assert no_table.value.headers == not_ready.value.headers == [(b"retry-after", b"1")]


def test_a_principal_limited_to_models_finds_no_other(tmp_path: Path) -> None:
    book = RouteBook(tmp_path / "table.json")
    book.apply(a_table(1))
    limited = msgspec.structs.replace(SHOP, models=frozenset({"sales"}))

    with pytest.raises(RefusalError) as caught:
        book.find("support", limited)
    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("split", "conversation", "user", "expected"),
    [
        ("conversation", "c1", "ada", ("shop:c1", "conversation")),
        ("conversation", None, "ada", ("id-1", "request")),
        ("user", "c1", "ada", ("shop:ada", "user")),
        ("user", "c1", None, ("shop:c1", "conversation")),
        ("user", None, None, ("id-1", "request")),
    ],
)
def test_the_unit_is_the_conversation_unless_the_policy_says_user(
    split: str, conversation: str | None, user: str | None, expected: tuple[str, str]
) -> None:
    route = msgspec.convert({"alias": "support", "split": split}, Route)

    found = unit_of(route, tenant="shop", conversation=conversation, user=user, request_id="id-1")

    assert found == expected


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_names_of_a_tenant_stay_apart_and_short(one: str, two: str) -> None:
    assert len(own_name("shop", one)) <= MAX_NAME
    assert (own_name("shop", one) == own_name("shop", two)) == (one == two)
    assert own_name("shop", one) != own_name("shop2", one)
