"""JSON Schemas and the AsyncAPI document of the events, made from their types.

`python -m adaptd.daemon.wire.event_contract` writes docs/events/. It stands alone: no other process
needs it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from adaptd import __version__
from adaptd.daemon.wire.events import (
    DEAD_LETTERS_TOPIC,
    FEEDBACK_TOPIC,
    INTERACTIONS_TOPIC,
    MAX_BATCH,
    SIGNATURE_HEADER,
    Feedback,
    Interaction,
)

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "events"
_DRAFT = "https://json-schema.org/draft/2020-12/schema"

# Fields that each kind needs beyond those of all feedback; `daemon.wire.feedback` checks them.
_TEXT = {"type": "string", "pattern": r"\S"}
_STRING = {"type": "string"}
_FILLED = {"type": "object", "minProperties": 1}
_NUMBER = {"type": "number"}
_GIVEN = {"type": ["number", "string"]}
_KINDS: dict[str, dict[str, Any]] = {
    "rating": {
        "required": ["value"],
        "properties": {"value": _NUMBER},
        "anyOf": [
            {"properties": {"value": {"enum": [-1, 1]}}},
            {"required": ["scale"], "properties": {"scale": {"type": "array"}}},
        ],
    },
    "correction": {
        "anyOf": [
            {"required": ["text"], "properties": {"text": _TEXT}},
            {"required": ["message"], "properties": {"message": _FILLED}},
        ]
    },
    "preference": {
        "required": ["chosen", "rejected"],
        "properties": {"chosen": _STRING, "rejected": _STRING},
    },
    "label": {"required": ["name", "value"], "properties": {"name": _STRING, "value": _GIVEN}},
    "metric": {"required": ["name", "value"], "properties": {"name": _STRING, "value": _NUMBER}},
    "comment": {"required": ["text"], "properties": {"text": _TEXT}},
}

_TOPICS = {
    "interactions": (INTERACTIONS_TOPIC, "interaction"),
    "feedback": (FEEDBACK_TOPIC, "feedback"),
}  # and the kind of event in each


def interaction_schema() -> dict[str, Any]:
    """Make the JSON Schema of one interaction. Unknown fields are kept in `extra`."""
    return _schema_of(Interaction)


def feedback_schema() -> dict[str, Any]:
    """Make the JSON Schema of one piece of feedback, with the fields that each kind needs."""
    schema = _schema_of(Feedback)
    schema["allOf"] = [
        {"if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]}, "then": needs}
        for kind, needs in _KINDS.items()
    ]
    return schema


def asyncapi_document() -> dict[str, Any]:
    """Make the AsyncAPI 3 document of the topics."""
    actions = dict.fromkeys(_TOPICS, "receive") | {"dead_letters": "send"}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "adaptd events", "version": __version__},
        "defaultContentType": "application/json",
        "channels": _make_channels(),
        "operations": {
            f"{action}_{name}": {"action": action, "channel": {"$ref": f"#/channels/{name}"}}
            for name, action in actions.items()
        },
        "components": {"messages": _make_messages()},
    }


def _make_channels() -> dict[str, Any]:
    channels: dict[str, Any] = {
        name: {
            "address": topic,
            "messages": {
                each: {"$ref": f"#/components/messages/{each}"} for each in (kind, f"{kind}_batch")
            },
        }
        for name, (topic, kind) in _TOPICS.items()
    }
    channels["dead_letters"] = {
        "address": DEAD_LETTERS_TOPIC,
        "messages": {"dead_letter": {"$ref": "#/components/messages/dead_letter"}},
    }
    return channels


def _make_messages() -> dict[str, Any]:
    messages: dict[str, Any] = {
        "dead_letter": {
            "summary": "The bytes of a message that could not be used, as they came.",
            "payload": {},
        }
    }
    schemas = {"interaction": interaction_schema(), "feedback": feedback_schema()}
    for kind, schema in schemas.items():
        messages[kind] = _make_message({"$ref": f"{kind}.schema.json"}, schema["description"])
        batch = _make_message(_make_batch(kind), f"Up to {MAX_BATCH} in one message.")
        messages[f"{kind}_batch"] = batch
    return messages


def _make_message(payload: dict[str, Any], summary: str) -> dict[str, Any]:
    header = {"type": "string", "description": "hex HMAC-SHA256 of the value, set by a gateway"}
    return {
        "summary": summary.split("\n", maxsplit=1)[0],
        "payload": payload,
        "headers": {"type": "object", "properties": {SIGNATURE_HEADER: header}},
    }


def _make_batch(kind: str) -> dict[str, Any]:
    items = {"$ref": f"{kind}.schema.json"}
    batch = {"type": "array", "minItems": 1, "maxItems": MAX_BATCH, "items": items}
    return {"type": "object", "required": ["batch"], "properties": {"batch": batch}}


def _schema_of(event: type[msgspec.Struct]) -> dict[str, Any]:
    _, definitions = msgspec.json.schema_components([event], ref_template="#/$defs/{name}")
    own = definitions.pop(event.__name__)
    own["description"] = " ".join(own["description"].split())
    return {"$schema": _DRAFT, **own, **({"$defs": definitions} if definitions else {})}


def documents() -> dict[str, str]:
    """Make the content of every file in docs/events/, by name."""
    made = {
        "interaction.schema.json": interaction_schema(),
        "feedback.schema.json": feedback_schema(),
        "asyncapi.json": asyncapi_document(),
    }
    return {name: json.dumps(value, indent=2) + "\n" for name, value in made.items()}


def main() -> None:
    """Write the files to the folder given, or to docs/events/."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
