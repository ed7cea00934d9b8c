"""Adapters trained by the real child, and what can go wrong with one between trainer and server."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

from adaptd.daemon.domain.bases import base_digest
from adaptd.daemon.training.job import Done, Job, decode_line, write_job
from tests.support.tiny_model import FORMAT
from tests.support.waiting import LIMIT_S

Tensors = dict[str, torch.Tensor]
WEIGHTS = "adapter_model.safetensors"


def train_adapter(
    folder: Path,
    base_dir: Path,
    *,
    texts: list[list[int]],
    answers: list[list[int]],
    steps: int = 12,
    learning_rate: float = 2e-3,
) -> Path:
    """Train on (text, answer) pairs of token ids; the probes are the same pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [text + answer for text, answer in zip(texts, answers, strict=True)]
    masks = [[0] * len(t) + [1] * len(a) for t, a in zip(texts, answers, strict=True)]
    pq.write_table(pa.table({"input_ids": rows, "loss_mask": masks}), folder / "train.parquet")
    lengths = [len(text) for text in texts]
    pq.write_table(pa.table({"ids": rows, "context_tokens": lengths}), folder / "probes.parquet")
    job = Job(
        run_id="run-1",
        model="support",
        base="base",
        base_dir=str(base_dir),
        base_digest=base_digest(base_dir),
        snapshot_id="snapshot-1",
        snapshot_hash="0" * 64,
        train_path=str(folder / "train.parquet"),
        probes_path=str(folder / "probes.parquet"),
        directory=str(folder),
        rank=8,
        alpha=16,
        targets=["q_proj", "v_proj"],
        learning_rate=learning_rate,
        steps=steps,
        batch=8,
        micro_batch=8,
        max_length=256,
        max_time_s=LIMIT_S,
        checkpoint_every=steps,
        seed=1,
        threads=2,
        niceness=0,
        dtype=FORMAT,
    )
    done = subprocess.run(
        [sys.executable, "-m", "adaptd.daemon.training.worker", str(write_job(job))],
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    last = decode_line(done.stdout.splitlines()[-1]) if done.stdout else None
    assert isinstance(last, Done), done.stderr.decode()[-2000:]
    return Path(last.path)


def random_ids(seed: int, count: int, length: int, *, below: int) -> list[list[int]]:
    """Token ids from 8 up: past the special tokens."""
    random = np.random.default_rng(seed)
    return random.integers(8, below, (count, length)).tolist()


def changed(
    adapter: Path, out: Path, change: Callable[[Tensors], Tensors], *, sealed: bool = True
) -> Path:
    """A copy with other weights and the trainer's probes.

    `sealed` again, it stands for a server that applies right files wrongly; unsealed, for files
    that were damaged.
    """
    shutil.copytree(adapter, out)
    for file in out.iterdir():
        file.chmod(0o644)
    save_file(change(load_file(adapter / WEIGHTS)), out / WEIGHTS, metadata={"format": "pt"})
    if sealed:
        manifest = json.loads((out / "manifest.json").read_text())
        manifest["files"][WEIGHTS] = hashlib.sha256((out / WEIGHTS).read_bytes()).hexdigest()
        (out / "manifest.json").write_text(json.dumps(manifest))
    return out


def reseal(adapter: Path, content_hash: str) -> None:
    """Say that these are the files of the version with that hash."""
    file = adapter / "manifest.json"
    file.chmod(0o644)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"content_hash": content_hash}))


def hash_of(adapter: Path) -> str:
    """Its content hash, as its manifest says."""
    return json.loads((adapter / "manifest.json").read_text())["content_hash"]


def scaled(factor: float) -> Callable[[Tensors], Tensors]:
    """The change comes out `factor` times as strong."""
    return lambda tensors: {k: v * factor if "lora_B" in k else v for k, v in tensors.items()}


def without_layer(number: int) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {k: v for k, v in tensors.items() if f".layers.{number}." not in k}


def moved_off(tensors: Tensors) -> Tensors:
    """Names of layers that the server's model does not have: it loads, and applies nothing."""
    return {k.replace(".layers.", ".layers.9"): v.contiguous() for k, v in tensors.items()}


def figures_of(adapter: Path) -> dict[str, object]:
    return json.loads((adapter / "manifest.json").read_text())["figures"]
