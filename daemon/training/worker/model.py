"""The base with LoRA on it, new or continued from a parent, with its logits and log-probs."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from adaptd.daemon.domain.bases import base_digest
from adaptd.daemon.training.adapter_files import CONFIG
from adaptd.daemon.training.batches import pad_lengths
from adaptd.daemon.training.job import Job
from adaptd.daemon.wire.errors import AdaptdError

# Models that scale or cap their logits after the head: for them the whole forward is needed.
_RESCALED = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "output_multiplier",
    "lm_head_multiplier",
)
# Scored together: their logits in float32 take 200 MB with a vocabulary of 49,152.
_SCORED_TOKENS = 1024


def load_model(job: Job) -> PeftModel:
    """Load the base and add the parent's LoRA weights, or new ones, in float32.

    Raises:
        AdaptdError: the base is not the one the job names, or the parent has another shape.
    """
    if (found := base_digest(Path(job.base_dir))) != job.base_digest:
        problem = f"its digest is {found[:8]}, the job's {job.base_digest[:8]}"
        raise AdaptdError(job.base_dir, problem, "Give the base that is served")
    on_gpu = torch.cuda.is_available()
    base = AutoModelForCausalLM.from_pretrained(
        job.base_dir,
        dtype=getattr(torch, job.dtype),
        # Eager is the faster one on a CPU at these lengths, and built for fewer shapes.
        attn_implementation="sdpa" if on_gpu else "eager",
        local_files_only=True,
    )
    model = _load_parent(base, job) if job.parent else get_peft_model(base, lora_config(job))
    assert isinstance(model, PeftModel)
    return model.to(torch.device("cuda" if on_gpu else "cpu"))


def base_of(model: PeftModel) -> Any:
    """The causal language model inside, with LoRA in its layers."""
    return model.get_base_model()  # PEFT types it as a tensor or module


def vocabulary_size(model: PeftModel) -> int:
    return base_of(model).config.get_text_config().vocab_size


def lora_config(job: Job) -> LoraConfig:
    return LoraConfig(
        r=job.rank,
        lora_alpha=job.alpha,
        target_modules=sorted(job.targets),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


def _load_parent(base: PreTrainedModel, job: Job) -> PeftModel:
    assert job.parent
    path = Path(job.parent.path)
    config: dict[str, Any] = json.loads((path / CONFIG).read_bytes())
    shape = (config["r"], config["lora_alpha"], sorted(config["target_modules"]))
    if shape != (job.rank, job.alpha, sorted(job.targets)):
        problem = "its rank, alpha or target modules are not the job's"
        raise AdaptdError(job.parent.name, problem, "Train with start_from: base")
    return PeftModel.from_pretrained(base, path, is_trainable=True)


def logits_at(model: PeftModel, input_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Logits in float32 at flat positions only."""
    # The head over a vocabulary of 49,152 is a fifth of the work of a step when every position goes
    # through it; answers are a tenth of the positions.
    base = base_of(model)
    if any(getattr(base.config.get_text_config(), name, None) for name in _RESCALED):
        logits = model(input_ids=input_ids, use_cache=False).logits
        return logits.flatten(0, 1)[positions].float()
    hidden = base.base_model(input_ids, use_cache=False).last_hidden_state
    return base.get_output_embeddings()(hidden.flatten(0, 1)[positions]).float()


@torch.inference_mode()
def token_logprobs(model: PeftModel, sequences: list[list[int]]) -> list[list[float]]:
    """Natural-log probability of each token given those before it; the first is 0.0."""
    if not sequences:
        return []
    lengths = pad_lengths([len(ids) for ids in sequences], at_most=3)
    found: dict[int, list[float]] = {}
    for shorter, length in pairwise([0, *lengths]):
        wanted = [at for at, ids in enumerate(sequences) if shorter < len(ids) <= length]
        rows = max(1, _SCORED_TOKENS // length)
        for start in range(0, len(wanted), rows):
            batch = wanted[start : start + rows]
            scores = _batch_logprobs(model, [sequences[at] for at in batch], rows, length)
            found |= dict(zip(batch, scores, strict=True))
    return [found[at] for at in range(len(sequences))]


def _batch_logprobs(
    model: PeftModel, sequences: list[list[int]], rows: int, length: int
) -> list[list[float]]:
    """The log-probs of `rows` sequences at most, none longer than `length` tokens."""
    # Always `rows` x `length` tokens, so every batch has the same shape. Padding is on the right
    # under causal attention: no token sees it.
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


def seed_everything(job: Job) -> None:
    torch.manual_seed(job.seed)
    torch.set_num_threads(job.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # A debugging aid of that mode that costs time. The module makes the name at import.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 untyped
