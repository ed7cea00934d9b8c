"""Sides of examples, training or holdout, by group and for good. Pure.

A group is a set of conversations linked by shared normalised last messages. A hash with the
installation's key decides its side once, and each member is recorded: nobody who knows the code
can choose texts that fall on a side. Groups that later turn out to be linked keep both records: if
their sides differ, their examples go to neither.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from adaptd.daemon.dataset.example import Example
from adaptd.daemon.store.lifecycle.snapshots import Member

TRAIN, HOLDOUT = "train", "holdout"


class Split(msgspec.Struct, frozen=True):
    """Examples with their group, numbers left out by reason, and the members to record."""

    train: list[tuple[Example, str]]
    holdout: list[tuple[Example, str, int]]
    left_out: dict[str, int]
    new: list[Member]


def split_examples(
    examples: Sequence[Example],
    known: Mapping[str, Member],
    golden: Iterable[str],
    *,
    share: float,
    joining: int,
    key: bytes,
) -> Split:
    """Put every example on its side.

    1. Link examples and recorded members to groups.
    2. Leave out groups of golden messages, and groups whose recorded sides differ.
    3. Take the recorded side of a group, else decide it by the hash.
    4. Hold out corrections only: a served answer is no reference (D13).

    `known` are recorded members, `golden` the member keys of golden messages, `share` the part of
    new groups held out, `joining` the holdout version they join, `key` (at most 64 bytes) the key
    of the hash.
    """
    reserved = frozenset(golden)
    groups = _link_groups(examples, known)
    split = Split([], [], defaultdict(int), [])
    held_out = _HoldoutRule(share, joining, key)
    for members, held in groups:
        _place_group(split, members, held, known, reserved, held_out)
    split.train.sort(key=lambda pair: (pair[0].interaction, pair[0].feedback))
    split.holdout.sort(key=lambda triple: (triple[0].interaction, triple[0].feedback))
    return msgspec.structs.replace(split, left_out=dict(sorted(split.left_out.items())))


class _HoldoutRule(NamedTuple):
    """Rule that holds out a share of new groups, for one holdout version."""

    share: float
    joining: int
    key: bytes

    def choose_side(self, group: str) -> tuple[str, int | None]:
        digest = hashlib.blake2b(f"side\0{group}".encode(), digest_size=8, key=self.key)
        held = int(digest.hexdigest(), 16) / 2**64 < self.share
        return (HOLDOUT, self.joining) if held else (TRAIN, None)


def members_of(example: Example) -> tuple[str, str]:
    """Return the two keys that link an example to its group: conversation and last message."""
    return f"c:{example.conversation or example.interaction}", message_key(example.last_words)


def message_key(normalised_text: str) -> str:
    """Return the member key of a normalised message."""
    digest = hashlib.blake2b(normalised_text.encode(), digest_size=16).hexdigest()
    return f"m:{digest}"


def _link_groups(
    examples: Sequence[Example], known: Mapping[str, Member]
) -> list[tuple[frozenset[str], list[Example]]]:
    """Return groups of examples with all their member keys; records link members too."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]  # halves the way for the next look
            key = parent[key]
        return key

    def link(one: str, other: str) -> None:
        # The smaller key leads, so that the order of examples decides nothing.
        low, high = sorted((root(one), root(other)))
        parent[high] = low

    for member in known.values():
        link(member.member, f"g:{member.group}")  # no member itself, only a knot of them
    for example in examples:
        link(*members_of(example))
    held: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        held[root(members_of(example)[0])].append(example)
    keys: dict[str, set[str]] = defaultdict(set)
    for key in parent:
        keys[root(key)].add(key)
    return [(frozenset(keys[top]), held[top]) for top in sorted(held)]


def _place_group(
    split: Split,
    members: frozenset[str],
    examples: list[Example],
    known: Mapping[str, Member],
    reserved: frozenset[str],
    held_out: _HoldoutRule,
) -> None:
    if members & reserved:  # golden prompts are on no side: they are a suite already
        split.left_out["golden_group"] += len(examples)
        return
    recorded = [known[key] for key in members if key in known]
    if len({member.side for member in recorded}) > 1:
        split.left_out["groups_met"] += len(examples)
        return
    fresh = sorted(key for key in members if key not in known and not key.startswith("g:"))
    if recorded:  # where groups of two holdout versions met, the older version counts
        group = min(member.group for member in recorded)
        side = recorded[0].side
        version = min((m.holdout_version for m in recorded if m.holdout_version), default=None)
    else:
        group = _name_group(fresh)
        side, version = held_out.choose_side(group)
    split.new.extend(
        Member(member=key, group=group, side=side, holdout_version=version) for key in fresh
    )
    if side == TRAIN:
        split.train.extend((example, group) for example in examples)
        return
    corrections = [example for example in examples if example.kind == "correction"]
    split.holdout.extend((example, group, version or held_out.joining) for example in corrections)
    if len(corrections) < len(examples):
        split.left_out["approved_in_holdout"] += len(examples) - len(corrections)


def _name_group(members: Sequence[str]) -> str:
    return hashlib.blake2b(members[0].encode(), digest_size=8).hexdigest()
