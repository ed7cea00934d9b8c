"""The gateway's settings: a JSON file named by ADAPTD_GATEWAY_CONFIG."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from adaptd.daemon.wire.errors import SettingsError
from adaptd.daemon.wire.events import FEEDBACK_TOPIC, INTERACTIONS_TOPIC, Id
from adaptd.daemon.wire.files import read_regular, replace_file
from adaptd.daemon.wire.kafka import KafkaSecurity
from adaptd.daemon.wire.texts import NOT_DECODED
from adaptd.serving.gateway.allowlist import CHAT_FIELDS, COMPLETION_FIELDS

CONFIG_VARIABLE = "ADAPTD_GATEWAY_CONFIG"

Positive = Annotated[int, msgspec.Meta(gt=0)]
PositiveSeconds = Annotated[float, msgspec.Meta(gt=0)]


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one gateway. Written by the process that starts its server, or by a person.

    With neither `kafka_bootstrap` nor `events_url` interactions wait in the spool and feedback is
    answered 503. `upstream_url` is for the reverse proxy only.
    """

    gateway: Id
    tokens_path: Path
    control_token_path: Path
    secret_path: Path
    table_path: Path
    spool_dir: Path
    kafka_bootstrap: str | None = None
    kafka_security: KafkaSecurity = KafkaSecurity()  # the password may be in ADAPTD_KAFKA_PASSWORD
    events_url: str | None = None  # the daemon's POST /v1/events; used where there is no Kafka
    interactions_topic: str = INTERACTIONS_TOPIC
    feedback_topic: str = FEEDBACK_TOPIC
    upstream_url: str | None = None
    upstream_key_path: Path | None = None  # a file with the upstream's API key, where it has one
    upstream_limit_s: PositiveSeconds = 600

    chat_fields: frozenset[str] = CHAT_FIELDS
    completion_fields: frozenset[str] = COMPLETION_FIELDS
    max_body_bytes: Positive = 4 << 20
    body_limit_s: PositiveSeconds = 30
    feedback_limit_s: PositiveSeconds = 5
    feedback_waiting: Positive = 64  # requests; more are answered 503 at once

    queue_bytes: Positive = 64 << 20  # texts waiting in memory; above it they are dropped
    # Rows waiting in memory, about 1 kB each; above it rows are lost.
    queue_rows: Positive = 100_000
    max_event_bytes: Positive = 900_000  # below the broker's usual 1 MiB a message
    segment_bytes: Positive = 64 << 20
    spool_bytes: Positive = 4 << 30  # above it texts are dropped, rows still kept
    stop_grace_s: PositiveSeconds = 3


def load_settings(environment: Mapping[str, str] | None = None) -> GatewaySettings:
    """Read the file that ADAPTD_GATEWAY_CONFIG names.

    Raises:
        SettingsError: the variable or the file is missing, or a value is wrong.
    """
    name = (os.environ if environment is None else environment).get(CONFIG_VARIABLE)
    if not name:
        raise SettingsError(
            CONFIG_VARIABLE, "it is not set", "Name the gateway's JSON settings file in it"
        )
    return read_settings(Path(name))


def read_settings(path: Path) -> GatewaySettings:
    """Read a settings file.

    Raises:
        SettingsError: it is missing, or a value is wrong.
    """
    try:
        content = read_regular(path)
        return msgspec.json.decode(content, type=GatewaySettings, dec_hook=_decode_path)
    except (OSError, *NOT_DECODED) as error:
        raise SettingsError(
            str(path), f"the gateway's settings cannot be used ({error})", "See docs/gateway.md"
        ) from error


def write_settings(path: Path, settings: GatewaySettings) -> None:
    """Write the file for a gateway that will be started, with absolute paths."""
    content = msgspec.json.encode(settings, enc_hook=lambda found: str(found.absolute()))
    replace_file(path, msgspec.json.format(content) + b"\n")


def _decode_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"Expected a path, got {value!r}")
