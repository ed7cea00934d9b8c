"""JSON Schemas and the AsyncAPI document of the events, made from their types.

`python -m adaptd.daemon.wire.event_contract` writes docs/events/. Stands alone: nothing that runs
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

# The fields each kind needs beyond those of every piece of feedback; `daemon.wire.feedback` checks.
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


def interaction_schema() -> dict[str, Any]:
    """JSON Schema of one interaction. Unknown fields are allowed and kept in `extra`."""
    return _schema_of(Interaction)


def feedback_schema() -> dict[str, Any]:
    """JSON Schema of one piece of feedback, with what each kind needs."""
    schema = _schema_of(Feedback)
    schema["allOf"] = [
        {"if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]}, "then": needs}
        for kind, needs in _KINDS.items()
    ]
    return schema


def asyncapi() -> dict[str, Any]:
    """AsyncAPI 3 document of the topics."""
    schemas = {"interaction": interaction_schema(), "feedback": feedback_schema()}
    topics = {"interactions": INTERACTIONS_TOPIC, "feedback": FEEDBACK_TOPIC}
    kinds = {"interactions": "interaction", "feedback": "feedback"}
    channels = {
        name: {
            "address": topic,
            "messages": {
                kinds[name]: {"$ref": f"#/components/messages/{kinds[name]}"},
                f"{kinds[name]}_batch": {"$ref": f"#/components/messages/{kinds[name]}_batch"},
            },
        }
        for name, topic in topics.items()
    }
    channels["dead_letters"] = {
        "address": DEAD_LETTERS_TOPIC,
        "messages": {"dead_letter": {"$ref": "#/components/messages/dead_letter"}},
    }
    messages: dict[str, Any] = {
        "dead_letter": {
            "summary": "The bytes of a message that could not be used, as they came.",
            "payload": {},
        }
    }
    for kind, schema in schemas.items():
        messages[kind] = _message({"$ref": f"{kind}.schema.json"}, schema["description"])
        messages[f"{kind}_batch"] = _message(_batch_of(kind), f"Up to {MAX_BATCH} in one message.")
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "adaptd events", "version": __version__},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": {
            **{
                f"receive_{name}": {
                    "action": "receive",
                    "channel": {"$ref": f"#/channels/{name}"},
                }
                for name in topics
            },
            "send_dead_letters": {
                "action": "send",
                "channel": {"$ref": "#/channels/dead_letters"},
            },
        },
        "components": {"messages": messages},
    }


def _message(payload: dict[str, Any], summary: str) -> dict[str, Any]:
    header = {"type": "string", "description": "hex HMAC-SHA256 of the value, set by a gateway"}
    return {
        "summary": summary.split("\n", maxsplit=1)[0],
        "payload": payload,
        "headers": {"type": "object", "properties": {SIGNATURE_HEADER: header}},
    }


def _batch_of(kind: str) -> dict[str, Any]:
    items = {"$ref": f"{kind}.schema.json"}
    batch = {"type": "array", "minItems": 1, "maxItems": MAX_BATCH, "items": items}
    return {"type": "object", "required": ["batch"], "properties": {"batch": batch}}


def _schema_of(event: type[msgspec.Struct]) -> dict[str, Any]:
    _, definitions = msgspec.json.schema_components([event], ref_template="#/$defs/{name}")
    own = definitions.pop(event.__name__)
    own["description"] = " ".join(own["description"].split())
    return {"$schema": _DRAFT, **own, **({"$defs": definitions} if definitions else {})}


def documents() -> dict[str, str]:
    """Name → content of every file in docs/events/."""
    made = {
        "interaction.schema.json": interaction_schema(),
        "feedback.schema.json": feedback_schema(),
        "asyncapi.json": asyncapi(),
    }
    return {name: json.dumps(value, indent=2) + "\n" for name, value in made.items()}


def main() -> None:
    """Write them to the folder given, or to docs/events/."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
