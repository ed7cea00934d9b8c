"""What an erasure cannot reach, and what an operator does about it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


class Beyond(msgspec.Struct, frozen=True):
    """Where the person may still be, and what to do."""

    where: str
    what: str
    remedy: str


def beyond_reach(report: Mapping[str, Any]) -> list[Beyond]:
    """Everything outside our files, from what the steps found."""
    return [
        *_kafka(report.get("kafka", [])),
        *_operators_files(report),
        *_mentions(report),
        *_versions(report.get("versions", [])),
        Beyond(
            "backups",
            "backups and copies of disks made before now hold the person and this erasure does not",
            "Delete them, or erase the person again after each restore from one",
        ),
        Beyond(
            "dead letters in Kafka",
            "events of the person that were refused lie where they were sent, and where dead "
            "letters are published to",
            "Wait for the retention of these topics, or delete their records up to now",
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


def _kafka(ranges: Sequence[Mapping[str, Any]]) -> list[Beyond]:
    return [
        Beyond(
            f"Kafka {found['topic']}/{found['partition']}",
            f"{found['events']} events of the person lie at offsets {found['first_offset']} to "
            f"{found['last_offset']}",
            "Wait for the topic's retention, or delete everything before: kafka-delete-records.sh "
            "--offset-json-file with " + _delete_records(found),
        )
        for found in ranges
    ]


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


def _mentions(report: Mapping[str, Any]) -> list[Beyond]:
    found = report.get("mentions") or {}
    if not found.get("found"):
        return []
    ids = ", ".join(found.get("ids") or [])
    what = f"{found['found']} events of other people hold the identifier in their texts ({ids})"
    return [Beyond("store", what, "Erase those people too, or leave them: their texts are theirs")]


def _versions(names: Sequence[str]) -> list[Beyond]:
    if not names:
        return []
    what = f"copies of {', '.join(names)} outside the adapters folder hold what they learnt"
    return [Beyond("exported adapters", what, "Delete them wherever they were copied to")]
