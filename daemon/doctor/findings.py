"""Findings of the doctor, one a fact."""

from enum import StrEnum

import msgspec


class Level(StrEnum):
    """ERROR: adaptd cannot do its work. WARNING: it can, badly. NOTE: good to know."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Finding(msgspec.Struct, frozen=True):
    """`check` is a short stable name; `remedy` is empty where nothing is to be done."""

    level: Level
    check: str
    what: str
    remedy: str = ""


def ok(check: str, what: str) -> Finding:
    return Finding(Level.OK, check, what)


def note(check: str, what: str, remedy: str = "") -> Finding:
    return Finding(Level.NOTE, check, what, remedy)


def warning(check: str, what: str, remedy: str) -> Finding:
    return Finding(Level.WARNING, check, what, remedy)


def error(check: str, what: str, remedy: str) -> Finding:
    return Finding(Level.ERROR, check, what, remedy)
