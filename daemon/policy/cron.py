"""Cron expressions with cron's meaning, on APScheduler's triggers, which differ in two points.

APScheduler counts Monday as 0 and wants both day fields to match; cron counts Sunday as 0 and 7
and, where both are restricted, takes either.
"""

# APScheduler has no types.
# pyright: reportMissingTypeStubs=false
# pyright: reportUnknownMemberType=false

from datetime import datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = ("minute", "hour", "day", "month", "day_of_week")


def cron_trigger(expression: str, timezone: str) -> BaseTrigger:
    """Make the trigger of a cron expression in an IANA time zone.

    Raises:
        ValueError: the expression has not five fields, or a field is invalid.
    """
    fields = dict(zip(_FIELDS, expression.split(), strict=False))
    if len(expression.split()) != len(_FIELDS):
        raise ValueError(f"it has {len(expression.split())} fields, not five")
    fields["day_of_week"] = _name_weekdays(fields["day_of_week"])
    zone = ZoneInfo(timezone)
    # Where one of the day fields is open, the other decides, as APScheduler does by itself.
    if "*" in (fields["day"][0], fields["day_of_week"]):
        return CronTrigger(**fields, timezone=zone)
    by_day = CronTrigger(**fields | {"day_of_week": "*"}, timezone=zone)
    return OrTrigger([by_day, CronTrigger(**fields | {"day": "*"}, timezone=zone)])


def check_cron(expression: str) -> None:
    """Raise ValueError where an expression is no cron expression, or never fires."""
    trigger = cron_trigger(expression, "UTC")
    if next_fire(trigger, datetime.now(ZoneInfo("UTC"))) is None:  # such as 30 February
        raise ValueError("it never fires")


def next_fire(trigger: BaseTrigger, after: datetime) -> datetime | None:
    """Return the first fire strictly after a time, or None."""
    # APScheduler counts the time itself as a fire.
    return trigger.get_next_fire_time(None, after + timedelta(microseconds=1))


def _name_weekdays(field: str) -> str:
    """Write cron's weekday field as names, which mean the same to both."""
    days = {day for part in field.split(",") for day in _expand_weekdays(part.lower())}
    return "*" if len(days) == len(_DAYS) else ",".join(_DAYS[day] for day in sorted(days))


def _expand_weekdays(part: str) -> list[int]:
    spread, _, step_text = part.partition("/")
    first, dash, last = spread.partition("-")
    step = int(step_text) if step_text else 1
    if step < 1:
        raise ValueError(f"the step in {part!r} is not above 0")
    if spread == "*":
        start, end = 0, 6
    else:
        start = _read_weekday(first)
        end = _read_weekday(last) if dash else (6 if step_text else start)
        end += 7 if end < start and end == 0 else 0  # sat-sun
    if end < start:
        raise ValueError(f"{part!r} ends before it starts")
    return [day % 7 for day in range(start, end + 1, step)]


def _read_weekday(text: str) -> int:
    if text in _DAYS:
        return _DAYS.index(text)
    digits = "".join(takewhile(str.isdigit, text))
    if digits != text or not digits or int(digits) > 7:
        raise ValueError(f"{text!r} is not a weekday: 0 to 7 (0 and 7 are Sunday) or sun to sat")
    return int(digits)
