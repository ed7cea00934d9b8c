"""`python -m daemon.training.worker.calibrate BASE`: time number formats, answer in JSON.

Runs in the interpreter that serves, on all cores that the process may use. A GPU is asked for its
capability and not timed. Takes torch's import and about three seconds.
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daemon.domain.machine import core_count

_BUDGET_S = 3.0
_WARM_ROUNDS = 1
_CUSTOMERS = 8  # decoding with so many at once
_DECODE_STEPS = 24  # so many decoding steps weigh as one training step does
_MOST_STEP_FLOP = 1e9  # of one product of the training step: 40 ms at 25 GFLOP/s
_MOST_ROWS, _FEWEST_ROWS = 1280, 32  # tokens; the demo trains on 16 rows of 80 at a time
_LONGEST_SIDE = 4096  # a wider layer is as fast, and costs more memory than a measurement should
_NATIVE_BF16 = (8, 0)  # compute capability


def layer_shape(config: dict[str, Any]) -> tuple[int, int]:
    """Width and inner width of the base's layers, from its config.json, at most 4096 each."""
    text = config.get("text_config") or config
    hidden = int(text.get("hidden_size") or text.get("n_embd") or text.get("d_model") or 1024)
    inner = int(text.get("intermediate_size") or text.get("n_inner") or 4 * hidden)
    return min(hidden, _LONGEST_SIDE), min(inner, _LONGEST_SIDE)


def rows_of(hidden: int, inner: int) -> int:
    """Tokens of the timed training step: fewer for wider layers, so that the time stays bounded."""
    return int(min(_MOST_ROWS, max(_FEWEST_ROWS, _MOST_STEP_FLOP / (2 * hidden * inner))))


def time_formats(hidden: int, inner: int, *, budget_s: float = _BUDGET_S) -> dict[str, float]:
    """GFLOP/s by format over a training step (forward, backward) and decoding of one layer's MLP.

    Formats take turns and each product counts with its best time, so another busy process slows
    all of them or none.
    """
    import torch  # noqa: PLC0415 - seconds to import; the pure parts are tested without it

    torch.set_num_threads(core_count())
    formats = [torch.bfloat16, torch.float16, torch.float32]
    works = {kind: _products(torch, kind, hidden, inner) for kind in formats}
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
        str(kind).removeprefix("torch."): round(_speed(works[kind], best[kind]), 1)
        for kind in formats
    }


def _products(
    torch: Any, kind: Any, hidden: int, inner: int
) -> list[tuple[Callable[[], object], tuple[float, int]]]:
    """Each with its FLOP and how often it counts."""
    rows, linear = rows_of(hidden, inner), torch.nn.functional.linear
    found = []
    for wide, narrow in ((inner, hidden), (hidden, inner)):
        weight = torch.randn(wide, narrow).to(kind)
        step = torch.randn(rows, narrow).to(kind).requires_grad_()
        gradient = torch.randn(rows, wide).to(kind)
        few = torch.randn(_CUSTOMERS, narrow).to(kind)

        def train(step: Any = step, weight: Any = weight, gradient: Any = gradient) -> None:
            linear(step, weight).backward(gradient)

        def decode(few: Any = few, weight: Any = weight) -> None:
            with torch.no_grad():
                linear(few, weight)

        size = 2.0 * wide * narrow
        found += [(train, (2 * rows * size, 1)), (decode, (_CUSTOMERS * size, _DECODE_STEPS))]
    return found


def _speed(works: list[Any], seconds: list[float]) -> float:
    flop = sum(size * times for _, (size, times) in works)
    spent = sum(best * times for best, (_, (_, times)) in zip(seconds, works, strict=True))
    return flop / spent / 1e9


def main() -> int:
    base = Path(sys.argv[1])
    os.environ.setdefault("OMP_NUM_THREADS", str(core_count()))
    # Threads that spin at barriers measure the neighbours: beside a busy vLLM float32 came out at
    # 5.8 GFLOP/s spinning and at 40.9 waiting.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    import torch  # noqa: PLC0415 - after the environment

    found: dict[str, Any] = {"torch": torch.__version__}
    if torch.cuda.is_available():
        found["native_bf16"] = torch.cuda.get_device_capability() >= _NATIVE_BF16
        found["device"] = torch.cuda.get_device_name()
    else:
        found["speeds"] = time_formats(
            *layer_shape(json.loads((base / "config.json").read_bytes()))
        )
    print(json.dumps(found))  # noqa: T201 - the answer
    return 0


if __name__ == "__main__":
    sys.exit(main())
