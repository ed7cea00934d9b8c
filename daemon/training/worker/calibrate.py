"""Time number formats on `cpu` or `gpu` with a base's shapes and print the answer as JSON.

A process of its own, in the interpreter that serves, on one core. GPUs are asked for their
capability and not timed. Takes torch's import and about three seconds.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_BUDGET_S = 3.0
_WARM_ROUNDS = 1
_CUSTOMERS = 8  # answers decoded at once
_DECODE_STEPS = 24  # decoding steps that count as much as one training step
_MOST_STEP_FLOP = 2.5e8  # of one product: a short one meets a moment without other load
_MOST_ROWS, _FEWEST_ROWS = 256, 32  # tokens of the training step
_LONGEST_SIDE = 4096  # a wider layer is as fast and only takes more memory
_NATIVE_BF16 = (8, 0)  # compute capability
_POOL_BYTES = 96 << 20  # of weights that decoding reads in turn: more than a cache holds


def layer_shape(config: dict[str, Any]) -> tuple[int, int]:
    """Width and inner width of the base's layers, from its config.json, at most 4096 each."""
    text = config.get("text_config") or config
    hidden = int(text.get("hidden_size") or text.get("n_embd") or text.get("d_model") or 1024)
    inner = int(text.get("intermediate_size") or text.get("n_inner") or 4 * hidden)
    return min(hidden, _LONGEST_SIDE), min(inner, _LONGEST_SIDE)


def step_rows(hidden: int, inner: int) -> int:
    """Tokens of the timed training step: fewer for wider layers, so that the time stays bounded."""
    return int(min(_MOST_ROWS, max(_FEWEST_ROWS, _MOST_STEP_FLOP / (2 * hidden * inner))))


def time_formats(hidden: int, inner: int, *, budget_s: float = _BUDGET_S) -> dict[str, float]:
    """GFLOP/s of one core by format, over training and decoding with one layer's MLP."""
    # One thread, products of milliseconds and the best time of each: other load hardly counts then.
    # Two threads that wait for each other measured a twentieth on a busy machine.
    import torch  # noqa: PLC0415 - seconds to import; the pure parts are tested without it

    torch.set_num_threads(1)
    formats = [torch.bfloat16, torch.float16, torch.float32]
    works = {kind: _make_products(torch, kind, hidden, inner) for kind in formats}
    best = {kind: [float("inf")] * len(works[kind]) for kind in formats}
    deadline = time.monotonic() + budget_s
    for round_ in itertools.count():
        for kind in formats:
            for number, (work, _) in enumerate(works[kind]):
                began = time.perf_counter()
                work()
                spent = time.perf_counter() - began
                if round_ >= _WARM_ROUNDS:
                    best[kind][number] = min(best[kind][number], spent)
        if round_ >= _WARM_ROUNDS and time.monotonic() > deadline:
            break
    return {
        str(kind).removeprefix("torch."): round(_average_speed(works[kind], best[kind]), 1)
        for kind in formats
    }


def _make_products(
    torch: Any, kind: Any, hidden: int, inner: int
) -> list[tuple[Callable[[], object], tuple[float, int]]]:
    """The timed products, each with its FLOP and its count in the average.

    Decoding reads other weights every time.
    """
    rows, linear = step_rows(hidden, inner), torch.nn.functional.linear
    copies = max(1, _POOL_BYTES // (hidden * inner * kind.itemsize))
    pool = torch.full((copies, hidden * inner), 0.01, dtype=kind)
    found = []
    for wide, narrow in ((inner, hidden), (hidden, inner)):
        weights = itertools.cycle(pool.view(copies, wide, narrow))
        step = torch.randn(rows, narrow).to(kind).requires_grad_()
        gradient = torch.randn(rows, wide).to(kind)
        few = torch.randn(_CUSTOMERS, narrow).to(kind)

        def train(step: Any = step, weights: Any = weights, gradient: Any = gradient) -> None:
            linear(step, next(weights)).backward(gradient)

        def decode(few: Any = few, weights: Any = weights) -> None:
            with torch.no_grad():
                linear(few, next(weights))

        size = 2.0 * wide * narrow
        found += [(train, (2 * rows * size, 1)), (decode, (_CUSTOMERS * size, _DECODE_STEPS))]
    return found


def _average_speed(works: list[Any], seconds: list[float]) -> float:
    flop = sum(size * times for _, (size, times) in works)
    spent = sum(best * times for best, (_, (_, times)) in zip(seconds, works, strict=True))
    return flop / spent / 1e9


def ask_gpus() -> dict[str, Any]:
    """The support of bfloat16 by every usable GPU, and their names; a problem without a GPU."""
    import torch  # noqa: PLC0415 - as above

    if not torch.cuda.is_available():
        return {"problem": "torch finds no GPU"}
    devices = range(torch.cuda.device_count())
    lowest = min(torch.cuda.get_device_capability(device) for device in devices)
    names = sorted({torch.cuda.get_device_name(device) for device in devices})
    return {"native_bf16": lowest >= _NATIVE_BF16, "device": ", ".join(names)}


def main() -> int:
    device, base = sys.argv[1], Path(sys.argv[2])
    if device == "gpu":
        found = ask_gpus()
    else:
        config = json.loads((base / "config.json").read_bytes())
        found = {"speeds": time_formats(*layer_shape(config))}
    print(json.dumps(found))  # noqa: T201 - the answer
    return 0


if __name__ == "__main__":
    sys.exit(main())
