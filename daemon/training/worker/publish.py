"""From the trained model to a finished adapter directory, with probes for the swap receipt (D3)."""

import importlib.metadata
import json
import platform
import shutil
from pathlib import Path
from typing import Any

import msgspec
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file

from adaptd.daemon.training.adapter_files import (
    CONFIG,
    PROBES,
    WEIGHTS,
    Manifest,
    content_hash,
    file_hash,
    seal_adapter,
)
from adaptd.daemon.training.job import Done, Job
from adaptd.daemon.training.lora_rules import ServedLora, config_problems, key_problems
from adaptd.daemon.training.worker.data import ProbeItem
from adaptd.daemon.training.worker.failures import NotFiniteError
from adaptd.daemon.training.worker.model import token_logprobs
from adaptd.daemon.wire.errors import AdaptdError

_PACKAGES = ("adaptd", "torch", "transformers", "peft", "trl")
_FRESH = ".adapter"


def publish(job: Job, model: PeftModel, probes: list[ProbeItem], figures: dict[str, Any]) -> Done:
    """Write the adapter as it will be served, measure its probes, and seal the directory.

    1. Round the weights to the served number format.
    2. Check configuration and tensor names against vLLM's rules.
    3. Write weights, configuration, then each probe's log-probs with and without the adapter.
    4. Seal the directory with its manifest and rename it.

    Raises:
        NotFiniteError: a weight is not a number.
        AdaptdError: vLLM would refuse it.
    """
    fresh = Path(job.directory) / _FRESH
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    _round_weights(model, job)
    state = get_peft_model_state_dict(model)
    tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(state)}
    config = adapter_config(job)
    served = ServedLora(max_rank=job.rank, targets=job.targets)
    if problems := config_problems(config, served) + key_problems(tensors.keys(), served):
        raise AdaptdError("adapter", problems[0], "Change the train section of the policy")
    save_file(tensors, fresh / WEIGHTS, metadata={"format": "pt"})
    (fresh / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    _write_probes(fresh / PROBES, model, probes)
    manifest = _describe_adapter(job, fresh, config, figures)
    path = seal_adapter(fresh, manifest)
    return Done(path=str(path), content_hash=manifest.content_hash, figures=figures)


def adapter_config(job: Job) -> dict[str, Any]:
    """The configuration that PEFT and vLLM need, without a path of this machine."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": job.base,
        "r": job.rank,
        "lora_alpha": job.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(job.targets),
        "inference_mode": True,
    }


def _round_weights(model: PeftModel, job: Job) -> None:
    # The server computes in this number format: probes and file then agree with it.
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(getattr(torch, job.dtype))
            if not torch.isfinite(parameter.data).all():
                raise NotFiniteError(f"weight {name} is not a number")


def _write_probes(path: Path, model: PeftModel, probes: list[ProbeItem]) -> None:
    """Measure every probe with and without the adapter, and write them in the snapshot's order."""
    model.eval()
    sequences = [probe.ids for probe in probes]
    adapted = token_logprobs(model, sequences)
    with model.disable_adapter():
        plain = token_logprobs(model, sequences)
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


def _describe_adapter(
    job: Job, directory: Path, config: dict[str, Any], figures: dict[str, Any]
) -> Manifest:
    digests = {name: file_hash(directory / name) for name in (CONFIG, PROBES, WEIGHTS)}
    return Manifest(
        content_hash=content_hash((directory / WEIGHTS).read_bytes(), config),
        base_digest=job.base_digest,
        run_id=job.run_id,
        model=job.model,
        base=job.base,
        parent=job.parent.name if job.parent else None,
        snapshot_id=job.snapshot_id,
        snapshot_hash=job.snapshot_hash,
        seed=job.seed,
        job=msgspec.to_builtins(job),
        versions=_package_versions(),
        figures=figures,
        files=digests,
    )


def _package_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
