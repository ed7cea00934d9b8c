"""From the trained model to a finished adapter directory."""

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
    finish,
)
from adaptd.daemon.training.job import Done, Job
from adaptd.daemon.training.lora_rules import ServedLora, config_problems, key_problems
from adaptd.daemon.training.worker.data import ProbeItem
from adaptd.daemon.training.worker.failures import NotFiniteError
from adaptd.daemon.training.worker.probes import write_probes
from adaptd.daemon.wire.errors import AdaptdError

_PACKAGES = ("adaptd", "torch", "transformers", "peft", "trl")
_FRESH = ".adapter"


def publish(job: Job, model: PeftModel, probes: list[ProbeItem], figures: dict[str, Any]) -> Done:
    """Write the adapter as it will be served, measure its probes, and seal it.

    Raises:
        NotFiniteError: a weight is not a number.
        AdaptdError: vLLM would refuse it.
    """
    fresh = Path(job.directory) / _FRESH
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    _to_served_dtype(model, job)
    tensors = _tensors(model)
    config = adapter_config(job)
    served = ServedLora(max_rank=job.rank, targets=job.targets)
    if problems := config_problems(config, served) + key_problems(tensors.keys(), served):
        raise AdaptdError("adapter", problems[0], "Change the train section of the policy")
    save_file(tensors, fresh / WEIGHTS, metadata={"format": "pt"})
    (fresh / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    write_probes(fresh / PROBES, model, probes)
    manifest = _manifest(job, fresh, config, figures)
    path = finish(fresh, manifest)
    return Done(path=str(path), content_hash=manifest.content_hash, figures=figures)


def adapter_config(job: Job) -> dict[str, Any]:
    """What PEFT and vLLM need, and no path of this machine."""
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


def _to_served_dtype(model: PeftModel, job: Job) -> None:
    """Round the weights to what the server computes with: probes and file then agree with it."""
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(getattr(torch, job.dtype))
            if not torch.isfinite(parameter.data).all():
                raise NotFiniteError(f"weight {name} is not a number")


def _tensors(model: PeftModel) -> dict[str, torch.Tensor]:
    state = get_peft_model_state_dict(model)
    return {name: state[name].detach().cpu().contiguous() for name in sorted(state)}


def _manifest(
    job: Job, directory: Path, config: dict[str, Any], figures: dict[str, Any]
) -> Manifest:
    hashes = {name: file_hash(directory / name) for name in (CONFIG, PROBES, WEIGHTS)}
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
        versions=_versions(),
        figures=figures,
        files=hashes,
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
