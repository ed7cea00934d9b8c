"""Memory that serving and training a base take together on one machine."""

DEMO_WEIGHTS_BYTES = 269_000_000  # of the demo's base, 135 M parameters in 16 bits
# Daemon, broker, vLLM and trainer without weights, the trainer's activations included. In
# `make demo` in float32 all of them together had at most 7.2 GiB of anonymous memory; 7.8 GiB (PSS)
# with pages of libraries and weights, which the kernel drops and reads again.
_FIXED_BYTES = int(5.9 * 2**30)
_COPIES = 3  # of the weights: served, trained, and read while either loads


def needed_bytes(weights_bytes: int, dtype: str) -> int:
    """Estimate the memory that a base needs; `weights_bytes` is its size in 16 bits.

    `auto` needs what the smallest format needs: a format that does not fit is not chosen.
    """
    return _FIXED_BYTES + _COPIES * weights_bytes * (2 if dtype == "float32" else 1)


def memory_problem(needed: int, *, limit: int, available: int) -> str | None:
    """Explain a shortage of memory in numbers; None where there is enough.

    `limit` is the memory that may be used at most, `available` the part of it that is free now.
    """
    if limit < needed:
        return f"{gib(needed)} of memory are needed, and {gib(limit)} is all there is"
    if available < needed:
        return f"{gib(needed)} of memory are needed, and {gib(available)} are free"
    return None


def gib(size: int) -> str:
    """Write a size as people read it."""
    return f"{size / 2**30:.1f} GiB"
