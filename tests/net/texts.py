"""What operators, scrapers and programs read of a release: names, defaults, help and routes."""

import hashlib
import re
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import typer
from typer.testing import CliRunner

import adaptd.daemon.store as store_package
from adaptd.daemon.cli import app
from adaptd.daemon.settings import Settings
from adaptd.daemon.web.api import make_api
from adaptd.daemon.web.metrics import METRICS
from adaptd.daemon.wire.routes import GatewayState, Route
from adaptd.daemon.wire.signing import derive, sign
from adaptd.serving.capture.exchange import Exchange, RequestKind
from adaptd.serving.gateway.metrics import GatewayMetrics
from adaptd.serving.gateway.settings import GatewaySettings
from adaptd.serving.host.launch import command
from tests.support.engine_settings import make_engine_settings
from tests.support.event_samples import NOON

WIDTH = 80
_TYPE = re.compile(r"^# TYPE (adaptd_\w+) (\w+)$", re.MULTILINE)
_SAMPLE = re.compile(r"^(adaptd_\w+?)(?:_bucket|_count|_sum)?(?:\{(.*)\})? \S+$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="')


def all_texts() -> dict[str, Callable[[], Any]]:
    """What makes each, by the name of its artifact."""
    return {
        "openapi": openapi,
        "help": help_texts,
        "metrics": metrics,
        "settings": settings,
        "migrations": migrations,
        "command_lines": command_lines,
        "keys": keys,
    }


def openapi() -> dict[str, Any]:
    """The daemon's API, less the release's number."""
    document = make_api(Mock()).openapi()
    del document["info"]["version"]
    return document


def help_texts() -> dict[str, str]:
    """By command, as a terminal of WIDTH columns shows it."""
    environment = {"COLUMNS": str(WIDTH), "TERMINAL_WIDTH": str(WIDTH), "NO_COLOR": "1"}
    found = {}
    for words in _commands(typer.main.get_command(app)):
        shown = CliRunner().invoke(
            app, [*words, "--help"], prog_name="adaptd", color=False, env=environment
        )
        assert shown.exit_code == 0, shown.output
        found[" ".join(["adaptd", *words])] = shown.output
    return found


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, (*path, name))


def metrics() -> dict[str, Any]:
    """Name, type and labels of every metric of the daemon and of a gateway."""
    return {
        "daemon": {name: {"labels": list(labels)} for name, (labels, _) in METRICS.items()},
        "gateway": families(_busy_gateway()),
    }


def _busy_gateway() -> str:
    """A scrape in which every family has a sample."""
    found = GatewayMetrics()
    found.count_dead_letters({"not_json": 1})
    times: dict[str, Any] = {"arrived_at": NOON, "began": 1.0}
    asked = Exchange(id="i", kind=RequestKind.CHAT, tenant="t", gateway="g", **times)
    asked.model, asked.route = "support", Route(alias="support")
    asked.streamed, asked.first_byte, asked.ended = True, 2.0, 3.0
    found.count_exchange(asked)
    state = GatewayState(gateway="g", epoch=1, in_flight={"support@v1-11111111": 1})
    return found.render(state, shipped=1, refused=1, publish_failures=1).decode()


def families(text: str) -> dict[str, dict[str, Any]]:
    """By name, the type and the labels of every family of a scrape but for `_created` twins."""
    labels: dict[str, set[str]] = {}
    for name, given in _SAMPLE.findall(text):
        labels.setdefault(name, set()).update(set(_LABEL.findall(given)) - {"le"})
    return {
        name: {"type": kind, "labels": sorted(labels.get(name, ()))}
        for name, kind in _TYPE.findall(text)
        if not name.endswith("_created")
    }


def settings() -> dict[str, Any]:
    """Names, types, bounds and defaults of the daemon's settings and of a gateway's."""
    gateway, parts = msgspec.json.schema_components(
        [GatewaySettings], schema_hook=lambda kind: {"type": kind.__name__.lower()}
    )
    for field in parts["GatewaySettings"]["properties"].values():
        if isinstance(field.get("default"), list):  # a set's order is chance
            field["default"].sort()
    return {
        "daemon": _without_words(Settings.model_json_schema()),
        "gateway": _without_words({"is": gateway, "parts": parts}),
    }


def _without_words(value: Any) -> Any:
    """Without titles and descriptions, which are no part of a setting."""
    if isinstance(value, list):
        return [_without_words(found) for found in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _without_words(found)
        for key, found in value.items()
        if not (key in ("title", "description") and isinstance(found, str))
    }


def migrations() -> dict[str, str]:
    """SHA-256 of every migration by its file's name."""
    folder = resources.files(store_package) / "migrations"
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    }


def command_lines() -> dict[str, list[str]]:
    """How a server is started: a running one counts as stale where this differs."""
    asked = make_engine_settings(
        url="http://127.0.0.1:8000",
        python=Path("/opt/python"),
        base_name="tiny",
        base_dir=Path("/models/tiny"),
        gateway_config=Path("/home/adaptd/gateway.json"),
    )
    return {"vllm": command(asked)}


def keys() -> dict[str, str]:
    """What each key that is derived from one secret signs."""
    secret = bytes(range(32))
    purposes = ("ids", "events", "audit", "erasures", "holdouts")
    return {purpose: sign(derive(secret, purpose), b"net") for purpose in purposes}
