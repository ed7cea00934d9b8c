"""Log-probs of the probes with and without the adapter, for the swap receipt (D3)."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import torch
from peft import PeftModel

from adaptd.daemon.training.batches import pad_lengths
from adaptd.daemon.training.worker.data import ProbeItem
from adaptd.daemon.training.worker.model import logits_at

_TOKENS = 1024  # scored together: their logits in float32 take 200 MB with a vocabulary of 49,152


def write_probes(path: Path, model: PeftModel, probes: list[ProbeItem]) -> None:
    """Measure every probe twice and write them in the snapshot's order."""
    model.eval()
    adapted = token_logprobs(model, [probe.ids for probe in probes])
    with model.disable_adapter():
        plain = token_logprobs(model, [probe.ids for probe in probes])
    content: dict[str, Any] = {
        "probes": [
            {
                "ids": probe.ids,
                "context_tokens": probe.context_tokens,
                "base": plain[at],
                "adapter": adapted[at],
            }
            for at, probe in enumerate(probes)
        ]
    }
    path.write_bytes(msgspec.json.encode(content))


@torch.inference_mode()
def token_logprobs(model: PeftModel, sequences: list[list[int]]) -> list[list[float]]:
    """Natural-log probability of each token given those before it; the first is 0.0.

    Sequences are padded on the right under causal attention: no token sees the padding.
    """
    if not sequences:
        return []
    lengths = pad_lengths([len(ids) for ids in sequences], at_most=3)
    found: dict[int, list[float]] = {}
    for shorter, length in pairwise([0, *lengths]):
        wanted = [at for at, ids in enumerate(sequences) if shorter < len(ids) <= length]
        rows = max(1, _TOKENS // length)
        for start in range(0, len(wanted), rows):
            batch = wanted[start : start + rows]
            scores = _batch_logprobs(model, [sequences[at] for at in batch], rows, length)
            found |= dict(zip(batch, scores, strict=True))
    return [found[at] for at in range(len(sequences))]


def _batch_logprobs(
    model: PeftModel, sequences: list[list[int]], rows: int, length: int
) -> list[list[float]]:
    """Always `rows` x `length` tokens, filled up with padding: every batch has the same shape."""
    input_ids = torch.zeros(rows, length, dtype=torch.long)
    for line, ids in enumerate(sequences):
        input_ids[line, : len(ids)] = torch.tensor(ids)
    input_ids = input_ids.to(next(model.parameters()).device)
    logits = logits_at(model, input_ids, torch.arange(rows * length, device=input_ids.device))
    following = input_ids.roll(-1, dims=1).reshape(-1, 1)
    scores = (logits.gather(1, following).squeeze(1) - logits.logsumexp(1)).view(rows, length)
    return [
        [0.0, *line[: len(ids) - 1].tolist()]
        for ids, line in zip(sequences, scores.cpu(), strict=False)
    ]
