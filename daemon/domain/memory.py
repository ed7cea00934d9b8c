"""Memory that the whole loop needs on one machine, with the small base model of the demo."""

# Most of all processes together, by the format served and trained in: daemon, vLLM, trainer and
# broker at once, while the first adapter trains under traffic. Placeholders until measured.
NEEDED_BYTES = {
    "float32": int(6.0 * 2**30),
    "bfloat16": int(5.5 * 2**30),
    "float16": int(5.5 * 2**30),
}


def needed_bytes(dtype: str) -> int:
    """For one format; the most of all where the machine has still to choose it (`auto`)."""
    return NEEDED_BYTES.get(dtype, max(NEEDED_BYTES.values()))


def memory_problem(needed: int, *, limit: int, available: int) -> str | None:
    """Why there is too little memory, with the numbers; None where there is enough.

    `limit` is what may be used at most, `available` what of it is free now.
    """
    if limit < needed:
        return f"{gib(needed)} of memory are needed, and {gib(limit)} is all there is"
    if available < needed:
        return f"{gib(needed)} of memory are needed, and {gib(available)} are free"
    return None


def gib(size: int) -> str:
    """A size as people read it."""
    return f"{size / 2**30:.1f} GiB"
