"""Memory that the loop needs, against what there is."""

import pytest

from adaptd.daemon.domain.memory import DEMO_WEIGHTS_BYTES, memory_problem, needed_bytes

GIB = 2**30


@pytest.mark.parametrize(
    ("limit", "available", "words"),
    [
        (8 * GIB, 7 * GIB, None),
        (6 * GIB, 6 * GIB, None),
        (4 * GIB, 4 * GIB, "6.0 GiB of memory are needed, and 4.0 GiB is all there is"),
        (8 * GIB, 3 * GIB, "6.0 GiB of memory are needed, and 3.0 GiB are free"),
    ],
)
def test_too_little_memory_is_told_with_the_numbers(
    limit: int, available: int, words: str | None
) -> None:
    assert memory_problem(6 * GIB, limit=limit, available=available) == words


def test_eight_gib_are_enough_whatever_the_format() -> None:
    needed = {kind: needed_bytes(DEMO_WEIGHTS_BYTES, kind) for kind in ("float32", "bfloat16")}

    assert max(needed.values()) < 7.5 * GIB  # the kernel keeps some of eight
    assert needed["bfloat16"] < needed["float32"]
    assert needed_bytes(DEMO_WEIGHTS_BYTES, "auto") == min(needed.values())
