"""Values of a policy: durations, shares, margins. Strings in, plain numbers out."""

import re
from datetime import timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from adaptd.daemon.policy.cron import check_cron

_DURATION = re.compile(r"(\d{1,6}) ?(s|m|h|d)")  # a timedelta holds six digits of days
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_PERCENT = re.compile(r"(-?\d{1,6}(?:\.\d{1,6})?) ?%")
_POINTS = re.compile(r"(\d{1,3}(?:\.\d{1,6})?) points?")


class Strict(BaseModel):
    """Base of every part of a policy. A misspelt key is an error, never a silent default."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def wrong(value: Any, remedy: str) -> PydanticCustomError:
    """Refuse a value and say what to write instead."""
    return PydanticCustomError("wrong", "{problem}", {"problem": f"is {value}", "remedy": remedy})


def refused(problem: str, remedy: str) -> PydanticCustomError:
    """Refuse with a problem, where the value alone does not show it."""
    return PydanticCustomError("wrong", "{problem}", {"problem": problem, "remedy": remedy})


def read_duration(value: Any) -> Any:
    """Read `30s`, `30m`, `6h` or `7d` as a timedelta."""
    if isinstance(value, timedelta):
        return value
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise wrong(value, "Give a duration such as 30s, 30m, 6h or 7d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def write_duration(value: timedelta) -> str:
    """Write a duration the shortest way: `90s`, `30m`, `7d`."""
    seconds = int(value.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def read_share(value: Any) -> Any:
    """Read `5%` or 0.05 as a float from 0 to 1."""
    number = value
    if isinstance(value, str) and (found := _PERCENT.fullmatch(value)):
        number = float(found[1]) / 100
    # YAML's true is an int to Python.
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not is_number or not 0 <= number <= 1:
        raise wrong(value, "Give a share from 0% to 100%, or from 0 to 1")
    return float(number)


def read_points(value: Any) -> float:
    """Read `3 points`, `3%` or 0.03 of an exact-match rate as a float."""
    found = _POINTS.fullmatch(value) if isinstance(value, str) else None
    try:
        return read_share(float(found[1]) / 100 if found else value)
    except PydanticCustomError as error:
        raise wrong(value, "Give a margin such as 3 points, or 0.03") from error


def read_nats(value: Any) -> float:
    """Read a difference of log-likelihood in nats per reference token."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(value, "Give nats per reference token, such as 0.05")
    return float(value)


def check_timezone(value: str) -> str:
    """Check an IANA name."""
    try:
        ZoneInfo(value)  # refuses paths that leave its folder
    except (ValueError, KeyError, OSError) as error:  # unknown, outside its folder, a directory
        raise wrong(repr(value), "Give an IANA name such as Europe/Madrid") from error
    return value


def read_cron(value: str) -> str:
    """Check a cron expression and return it as written."""
    try:
        check_cron(value)
    except ValueError as error:
        raise refused(
            f"is {value!r}: {error}",
            'Give five fields, minute hour day month weekday, such as "0 3 * * mon-fri"',
        ) from error
    return value


def _text_schema(pattern: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", "examples": [example]})


_SHARE_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": r"^\d{1,3}(\.\d+)? ?%$"},
        {"type": "number", "minimum": 0, "maximum": 1},
    ],
    "examples": ["5%"],
}

Duration = Annotated[
    timedelta,
    BeforeValidator(read_duration),
    PlainSerializer(write_duration, when_used="json"),
    _text_schema(r"\d+ ?[smhd]", "30m"),
]
MARGIN_SCHEMA = WithJsonSchema(
    {
        "anyOf": [
            {"type": "string", "pattern": r"^(\d{1,3}(\.\d+)? points?|\d{1,3}(\.\d+)? ?%)$"},
            {"type": "number", "exclusiveMinimum": 0},
        ],
        "examples": ["3 points"],
    }
)
Share = Annotated[float, BeforeValidator(read_share), WithJsonSchema(_SHARE_SCHEMA)]
Timezone = Annotated[str, AfterValidator(check_timezone)]
Cron = Annotated[str, AfterValidator(read_cron), WithJsonSchema({"type": "string"})]
