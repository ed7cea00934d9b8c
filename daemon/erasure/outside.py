"""List what an erasure cannot reach, and what an operator does about it. Pure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

_RANGES_TOLD = 20
_KEYS_TOLD = 10


class Beyond(msgspec.Struct, frozen=True):
    """A place where the person may still be, and what to do."""

    where: str
    what: str
    remedy: str


def beyond_reach(report: Mapping[str, Any], *, letters_topic: str | None = None) -> list[Beyond]:
    """Everything outside our files, from what the steps found.

    `letters_topic`: where dead letters are published to now.
    """
    return [
        *_describe_ranges(report.get("kafka", [])),
        *_describe_letters(report),
        *_describe_published(report.get("published_letters"), letters_topic),
        *_operators_files(report),
        *_describe_mentions(report),
        *_list_versions(report.get("versions", [])),
        Beyond(
            "backups",
            "backups and copies of disks made before now hold the person and this erasure does not",
            "Delete them, or erase the person again after each restore from one",
        ),
        Beyond(
            "dead letters in Kafka",
            "letters that were dropped by age, or had lost their bytes before, cannot be told to "
            "be the person's; they lie where they were sent, and where dead letters are published",
            "Wait for the retention of these topics, or delete their records up to now. Those kept "
            "without bytes: adaptd deadletters list",
        ),
        Beyond(
            "imported files",
            "files that `adaptd import` read are as they were",
            "Delete what names the person in them",
        ),
        Beyond(
            "gateways on other machines",
            "a spool keeps what was sent until its segment is full",
            "Restart the gateway, or delete sent segments in its spool_dir",
        ),
        Beyond(
            "vLLM",
            "its prefix cache and loaded weights stay in memory until it ends",
            "Run: adaptd engine restart",
        ),
    ]


def _describe_ranges(ranges: Sequence[Mapping[str, Any]]) -> list[Beyond]:
    return [
        Beyond(
            f"Kafka {found['topic']}/{found['partition']}",
            f"{found['events']} events of the person lie at offsets {found['first_offset']} to "
            f"{found['last_offset']}",
            _describe_retention(found),
        )
        for found in ranges
    ]


def _describe_letters(report: Mapping[str, Any]) -> list[Beyond]:
    """Refused events, where they were sent; so were those that a redrive stored after all."""
    kinds = {
        "letters": "records with refused events of the person",
        "unread_letters": "refused records that nobody can look into and that may hold the person",
    }
    told = [
        Beyond(
            f"Kafka {found['topic']}/{found['partition']}",
            f"{found['records']} {kind} lie at offsets {_describe_offsets(found)}",
            _describe_retention(found),
        )
        for name, kind in kinds.items()
        for found in report.get(name, [])
    ]
    if lost := report.get("redriven_lost"):
        what = f"{lost} events of the person were redriven from letters that were deleted since"
        told.append(
            Beyond("redriven events in Kafka", what, "Wait for the retention of its topics")
        )
    return told


def _describe_offsets(found: Mapping[str, Any]) -> str:
    told = [
        str(first) if first == last else f"{first} to {last}"
        for first, last in found["offsets"][:_RANGES_TOLD]
    ]
    if found["ranges"] > len(told):
        told.append(f"more up to {found['last_offset']}")
    return ", ".join(told)


def _describe_published(found: Mapping[str, Any] | None, topic: str | None) -> list[Beyond]:
    """The store knows their keys and when they were published, not their offsets."""
    if not found or (found["last_ms"] is None and topic is None):
        return []
    letters = f"{found['letters'] - found['waiting']} dead letters that name or may name the person"
    named = topic or "the topic dead letters were published to"
    told: list[str] = []
    remedy = "Wait for its retention"
    if found["last_ms"] is not None:
        told.append(
            f"{letters} were published from {_format_time(found['first_ms'])} "
            f"to {_format_time(found['last_ms'])}"
        )
        remedy += (
            f", or delete with kafka-delete-records.sh everything before the offsets (none: to the "
            f"end) that kafka-get-offsets.sh --topic {named} --time {found['last_ms'] + 1} tells"
        )
    if found["waiting"] and topic:
        told.append(f"{found['waiting']} may have been on their way")
    keys = found["keys"][:_KEYS_TOLD]
    more = f" and {found['letters'] - len(keys)} more" if found["letters"] > len(keys) else ""
    told.append(f"their keys: {', '.join(keys)}{more}")
    return [Beyond(f"Kafka {named}", "; ".join(told), remedy)]


def _format_time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _describe_retention(found: Mapping[str, Any]) -> str:
    return (
        "Wait for the topic's retention, or delete everything before: kafka-delete-records.sh "
        "--offset-json-file with " + _delete_records(found)
    )


def _delete_records(found: Mapping[str, Any]) -> str:
    place = {
        "topic": found["topic"],
        "partition": found["partition"],
        "offset": found["last_offset"] + 1,
    }
    return msgspec.json.encode({"version": 1, "partitions": [place]}).decode()


def _operators_files(report: Mapping[str, Any]) -> list[Beyond]:
    named = [
        Beyond(place, "it names the person", "Edit it: golden files and policies are yours")
        for place in report.get("golden", [])
    ]
    named += [
        Beyond(place, "a file of the home folder names the person", "Look at it, and delete it")
        for place in report.get("left", [])
    ]
    named += [
        Beyond(
            place,
            "an old store that `adaptd restore --replace` moved aside holds the person",
            "Delete it with its log, the .wal beside it",
        )
        for place in report.get("replaced", [])
    ]
    old = [
        Beyond(
            f"policy {found['model']} version {found['version']}",
            "the store keeps every version of a policy, and this one names the person",
            "Choose by tags, not by people",
        )
        for found in report.get("policies", [])
    ]
    return named + old


def _describe_mentions(report: Mapping[str, Any]) -> list[Beyond]:
    found = report.get("mentions") or {}
    if not found.get("found"):
        return []
    ids = ", ".join(found.get("ids") or [])
    what = f"{found['found']} events of other people hold the identifier in their texts ({ids})"
    return [Beyond("store", what, "Erase those people too, or leave them: their texts are theirs")]


def _list_versions(names: Sequence[str]) -> list[Beyond]:
    if not names:
        return []
    what = f"copies of {', '.join(names)} outside the adapters folder hold what they learnt"
    return [Beyond("exported adapters", what, "Delete them wherever they were copied to")]
