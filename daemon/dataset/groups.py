"""Training or holdout, by group and for good (design: Holdouts). Pure.

A group is a set of conversations linked by shared normalised last messages. Its side is decided
once, by hash, and recorded member by member. Groups that later turn out to be linked keep both
records: if their sides differ, their examples go to neither.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from daemon.dataset.select import Example
from daemon.store.datasets import Member

TRAIN, HOLDOUT = "train", "holdout"


class Split(msgspec.Struct, frozen=True):
    """Examples with their group, those left out by reason, and the members to record."""

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
) -> Split:
    """Put every example on its side.

    `known` are recorded members, `golden` the member keys of golden messages (their groups are on
    no side), `share` the part of new groups held out, `joining` the holdout version they join.
    Only corrections are held out: a served answer is no reference (D13).
    """
    reserved = frozenset(golden)
    groups = _components(examples, known)
    split = Split([], [], defaultdict(int), [])
    for members, held in groups:
        _place(split, members, held, known, reserved, share=share, joining=joining)
    split.train.sort(key=lambda pair: (pair[0].interaction, pair[0].feedback))
    split.holdout.sort(key=lambda triple: (triple[0].interaction, triple[0].feedback))
    return msgspec.structs.replace(split, left_out=dict(sorted(split.left_out.items())))


def members_of(example: Example) -> tuple[str, str]:
    """The two keys an example brings to its group: its conversation and its last message."""
    return f"c:{example.conversation or example.interaction}", message_key(example.last_words)


def message_key(normalised_text: str) -> str:
    digest = hashlib.blake2b(normalised_text.encode(), digest_size=16).hexdigest()
    return f"m:{digest}"


def _components(
    examples: Sequence[Example], known: Mapping[str, Member]
) -> list[tuple[frozenset[str], list[Example]]]:
    """Groups of examples with all their member keys; recorded groups link their members too."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    def link(one: str, other: str) -> None:
        low, high = sorted((root(one), root(other)))
        parent[high] = low

    for member in known.values():
        link(member.member, f"g:{member.group}")
    for example in examples:
        link(*members_of(example))
    held: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        held[root(members_of(example)[0])].append(example)
    keys: dict[str, set[str]] = defaultdict(set)
    for key in parent:
        keys[root(key)].add(key)
    return [(frozenset(keys[top]), held[top]) for top in sorted(held)]


def _place(
    split: Split,
    members: frozenset[str],
    examples: list[Example],
    known: Mapping[str, Member],
    reserved: frozenset[str],
    *,
    share: float,
    joining: int,
) -> None:
    if members & reserved:
        split.left_out["golden_group"] += len(examples)
        return
    recorded = [known[key] for key in members if key in known]
    if len({member.side for member in recorded}) > 1:
        split.left_out["groups_met"] += len(examples)
        return
    fresh = sorted(key for key in members if key not in known and not key.startswith("g:"))
    if recorded:  # groups of two holdout versions that met count for the older one
        group = min(member.group for member in recorded)
        side = recorded[0].side
        version = min((m.holdout_version for m in recorded if m.holdout_version), default=None)
    else:
        group = _group_id(fresh)
        side, version = _side(group, share=share, joining=joining)
    split.new.extend(
        Member(member=key, group=group, side=side, holdout_version=version) for key in fresh
    )
    if side == TRAIN:
        split.train.extend((example, group) for example in examples)
        return
    corrections = [example for example in examples if example.kind == "correction"]
    split.holdout.extend((example, group, version or joining) for example in corrections)
    if len(corrections) < len(examples):
        split.left_out["approved_in_holdout"] += len(examples) - len(corrections)


def _group_id(members: Sequence[str]) -> str:
    return hashlib.blake2b(members[0].encode(), digest_size=8).hexdigest()


def _side(group: str, *, share: float, joining: int) -> tuple[str, int | None]:
    position = int(hashlib.blake2b(f"side\0{group}".encode(), digest_size=8).hexdigest(), 16)
    return (HOLDOUT, joining) if position / 2**64 < share else (TRAIN, None)
