"""Cron with cron's meaning: Sunday is 0 and 7, either day field is enough, clocks change."""

from datetime import UTC, datetime

import pytest

from adaptd.daemon.policy.cron import check_cron, cron_trigger, next_fire

SUNDAY = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def fires(expression: str, count: int, *, zone: str = "UTC", after: datetime = SUNDAY) -> list[str]:
    trigger, found = cron_trigger(expression, zone), []
    while len(found) < count:
        fire = next_fire(trigger, after)
        assert fire is not None
        after = fire
        found.append(fire.astimezone(UTC).strftime("%a %d %H:%M"))
    return found


@pytest.mark.parametrize("weekday", ["0", "7", "sun", "SUN"])
def test_sunday_is_zero_and_seven(weekday: str) -> None:
    assert fires(f"0 3 * * {weekday}", 2) == ["Sun 29 03:00", "Sun 06 03:00"]


@pytest.mark.parametrize("weekdays", ["1-5", "mon-fri", "1,2,3,4,5", "mon,2-5"])
def test_one_to_five_are_monday_to_friday(weekdays: str) -> None:
    days = [fire[:3] for fire in fires(f"0 3 * * {weekdays}", 6)]
    assert days == ["Mon", "Tue", "Wed", "Thu", "Fri", "Mon"]


@pytest.mark.parametrize("weekdays", ["*", "0-6", "1-7", "sun-sat"])
def test_all_weekdays_are_every_day(weekdays: str) -> None:
    days = [fire[:3] for fire in fires(f"0 3 * * {weekdays}", 7)]
    assert days == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


def test_a_weekend_may_end_on_sunday() -> None:
    assert [fire[:3] for fire in fires("0 3 * * sat-sun", 3)] == ["Sat", "Sun", "Sat"]


def test_a_day_of_the_month_or_a_weekday_is_enough() -> None:
    assert fires("0 3 1 * mon", 4) == [
        "Mon 23 03:00",
        "Mon 30 03:00",
        "Tue 01 03:00",
        "Mon 07 03:00",
    ]


def test_the_hour_is_the_time_zones() -> None:
    summer = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
    assert fires("0 3 * * *", 1, zone="Europe/Madrid") == ["Mon 23 02:00"]
    assert fires("0 3 * * *", 1, zone="Europe/Madrid", after=summer) == ["Thu 02 01:00"]


def test_a_daily_job_fires_once_on_the_days_the_clocks_change() -> None:
    spring, autumn = datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 12, tzinfo=UTC)
    madrid = "Europe/Madrid"
    assert fires("30 3 * * *", 2, zone=madrid, after=spring) == ["Sun 29 01:30", "Mon 30 01:30"]
    assert fires("30 3 * * *", 2, zone=madrid, after=autumn) == ["Sun 25 02:30", "Mon 26 02:30"]


def test_the_next_fire_is_strictly_later() -> None:
    trigger = cron_trigger("0 12 * * *", "UTC")
    assert next_fire(trigger, SUNDAY) == datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


REFUSED = """
* * * *|* * * * * *|@daily|61 * * * *|* * * * 8|* * * * 5-1|x * * * *|0 0 30 2 *|* * * * mon/0
* * * * */x|* * * * 1-|* * * * ²|? * * * *
"""


@pytest.mark.parametrize("expression", ["", *REFUSED.strip().replace("\n", "|").split("|")])
def test_what_cron_would_not_take_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        check_cron(expression)
