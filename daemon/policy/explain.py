"""Words for pydantic's errors: the problem at its key, and what to write instead. Pure."""

# JSON of any kind.
# pyright: reportUnknownArgumentType=false

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from adaptd.daemon.policy.document import Path
from adaptd.daemon.policy.model import Policy

# Keys and values that do not work yet: refused with these remedies, never ignored.
_NOT_YET = "does not work in this version of adaptd"
_KEYS_NOT_YET = {
    "curate.redact": "Remove the key; redact before you send events",
    "curate.near_duplicates": "Remove the key; equal texts are removed without it",
    "curate.replay_share": "Remove the key; a run sees every selected example",
    "train_when.budget": "Remove the key; use train.max_time and train_when.cooldown",
    "train_when.any[].drift": "Use new_examples, negative_share or cron",
    "rollout.shadow": "Remove the key; start with a small weight",
}
_VALUES_NOT_YET = {
    ("select.use[]", "preference"): "Use correction and rating",
    ("train.method", "dpo"): "Write auto or sft",
    ("train.method", "kto"): "Write auto or sft",
    ("gate.must_improve[].on", "history"): "Write fresh or golden",
    ("gate.must_not_drop[].on", "history"): "Write fresh or golden",
    ("curate.holdout.by", "user"): "Write conversation",
}
_SHOWN = 120  # letters of a value in a message
# Remedies by pydantic's type of error.
_TYPES = {
    "string_type": "Give text",
    "int_type": "Give a whole number",
    "int_from_float": "Give a whole number",
    "float_type": "Give a number",
    "bool_type": "Give true or false",
    "tuple_type": "Give a list",
    "model_type": "Give keys and values",
    "model_attributes_type": "Give keys and values",
    "dict_type": "Give keys and values",
    "finite_number": "Give a number",
}
_BOUNDS = {
    "greater_than": "Give more than {gt}",
    "greater_than_equal": "Give {ge} or more",
    "less_than": "Give less than {lt}",
    "less_than_equal": "Give {le} or less",
    "too_short": "Give at least {min_length}",
    "string_too_short": "Give at least {min_length} letter",
    "string_too_long": "Give at most {max_length} letters",
}


def is_real(error: ErrorDetails) -> bool:
    """Say whether an error is one of its own, not the echo of errors inside a list."""
    # pydantic counts only the right entries of a list; the wrong ones have errors of their own.
    given = error["input"]
    short = error["type"] == "too_short" and isinstance(given, list)
    return not (short and len(given) >= error.get("ctx", {}).get("min_length", 0))


def explain(error: ErrorDetails) -> tuple[str, str]:
    """Return the problem, which opens with the key, and the remedy."""
    path, kind = error["loc"], error["type"]
    context = error.get("ctx", {})
    name = key_name(path)
    if kind == "wrong":
        return f"{name} {_shorten_text(context['problem'])}", context["remedy"]
    if kind == "extra_forbidden":
        return _explain_unknown(path)
    if kind == "missing":
        return f"{name} is missing", _advise_missing(path)
    shown = f"{name} is {_shorten_text(_show_value(error['input']))}"
    if kind == "literal_error":
        return _explain_choice(path, shown, error["input"], context["expected"])
    if kind in _BOUNDS:
        return shown, _BOUNDS[kind].format(**context)
    return shown, _TYPES.get(kind, error["msg"])


def key_name(path: Path) -> str:
    """Write a path as `rollout.steps[2].weight`; list entries count from 0."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in path]
    return "".join(parts).lstrip(".") or "the policy"  # the file itself has no name


def _explain_unknown(path: Path) -> tuple[str, str]:
    name = key_name(path)
    if (remedy := _KEYS_NOT_YET.get(_write_pattern(path))) is not None:
        return f"{name} {_NOT_YET}", remedy
    known = sorted(_find_fields(path[:-1]))
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    remedy = f"Write {close[0]}" if close else f"Known here: {', '.join(known)}"
    return f"{name} is not a key", remedy


def _explain_choice(path: Path, shown: str, value: Any, expected: str) -> tuple[str, str]:
    key = (_write_pattern(path), value if isinstance(value, str) else "")
    if (remedy := _VALUES_NOT_YET.get(key)) is not None:
        return f"{shown}, which {_NOT_YET}", remedy
    return shown, f"Give {expected.replace(chr(39), '')}"


def _advise_missing(path: Path) -> str:
    field = _find_fields(path[:-1]).get(str(path[-1]))
    about = (field.description or "").split("\n")[0].rstrip(".") if field else ""
    return f"Add it: {about[:1].lower()}{about[1:]}" if about else "Add it"


def _find_fields(path: Sequence[str | int]) -> dict[str, Any]:
    """Return the keys that the model knows at a path."""
    model: Any = Policy
    for part in path:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        model = _inner_model(field.annotation) if field else None
        if model is None:
            return {}
    return dict(model.model_fields)


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _write_pattern(path: Path) -> str:
    return "".join("[]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _show_value(value: Any) -> str:
    if isinstance(value, dict):
        return "a group of keys"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value:
        return repr(value) if value[0].isdigit() else value  # '5' is not 5
    return "empty" if value is None or value == "" else str(value)


def _shorten_text(text: str) -> str:
    lines = text.splitlines()  # several lines become one; within a line nothing changes
    text = " ".join(line.strip() for line in lines) if len(lines) > 1 else "".join(lines)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
