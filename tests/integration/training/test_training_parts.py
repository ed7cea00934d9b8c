"""Parts of the training child that need torch: rows into tensors, log-probs, checkpoints."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel

from adaptd.daemon.training.batches import MicroBatch
from adaptd.daemon.training.worker import checkpoints
from adaptd.daemon.training.worker.data import read_rows
from adaptd.daemon.training.worker.failures import DataError
from adaptd.daemon.training.worker.methods.sft import SFT, micro_batch_tensors, step_weight
from adaptd.daemon.training.worker.model import (
    base_of,
    load_model,
    logits_at,
    seed_everything,
    token_logprobs,
)
from tests.support.broker import ROOT
from tests.support.training_world import a_job, rows
from tests.support.waiting import LIMIT_S

MIB = 1 << 20
PEAK = """
from adaptd.daemon.training.worker.process import peak_bytes
before = peak_bytes()
held = b"x" * (64 << 20)
del held
print(before, peak_bytes())
"""
GOOD: dict[str, Any] = {"input_ids": [1, 5, 6, 7], "loss_mask": [0, 0, 1, 1], "weight": 1.0}


def write(path: Path, *content: dict[str, Any]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(content)), path)
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_ids": [1, 5, 6, 99]}, "row 1: its token ids are not the base's"),
        ({"input_ids": [1, 5, 6, -1]}, "row 1: its token ids"),
        ({"input_ids": []}, "row 1: its token ids"),
        ({"loss_mask": [0, 0, 0, 0]}, "row 1: its loss mask"),
        ({"loss_mask": [1, 0, 0, 0]}, "row 1: its loss mask"),
        ({"loss_mask": [0, 1]}, "row 1: its loss mask"),
        ({"weight": 0.0}, "row 1: its weight is 0.0"),
        ({"weight": float("nan")}, "row 1: its weight is nan"),
    ],
)
def test_a_row_that_cannot_be_learnt_is_named_by_number(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    path = write(tmp_path / "train.parquet", GOOD, GOOD | change)
    with pytest.raises(DataError, match=words):
        read_rows(path, SFT.rows, vocabulary=50, max_length=8)


def test_long_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    long = {"input_ids": [5] * 9, "loss_mask": [0] * 8 + [1], "weight": 1.0}
    path = write(tmp_path / "train.parquet", long, GOOD, long)

    kept, too_long = read_rows(path, SFT.rows, vocabulary=50, max_length=8)

    assert ([row.ids for row in kept], too_long) == ([[1, 5, 6, 7]], 2)
    with pytest.raises(DataError, match="none of its 3 rows"):
        read_rows(path, SFT.rows, vocabulary=50, max_length=3)


def test_what_is_no_snapshot_is_told(tmp_path: Path) -> None:
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    for path in (tmp_path / "torn.parquet", tmp_path / "absent.parquet"):
        with pytest.raises(DataError, match="it cannot be read"):
            read_rows(path, SFT.rows, vocabulary=50, max_length=8)
    path = write(tmp_path / "other.parquet", {"ids": [1]})
    with pytest.raises(DataError, match="no column input_ids, loss_mask"):
        read_rows(path, SFT.rows, vocabulary=50, max_length=8)


def test_only_learnt_tokens_are_targets_and_rows_count_by_weight(tmp_path: Path) -> None:
    heavy = GOOD | {"input_ids": [1, 8, 9], "loss_mask": [0, 0, 1], "weight": 2.0}
    path = write(tmp_path / "t.parquet", GOOD, heavy)
    kept, _ = read_rows(path, SFT.rows, vocabulary=50, max_length=8)
    part = MicroBatch(rows=(0, 1), length=6, targets=5)

    tensors = micro_batch_tensors(part, kept, normaliser=step_weight((part,), kept))

    assert tensors["input_ids"].tolist() == [[1, 5, 6, 7, 0, 0], [1, 8, 9, 0, 0, 0]]
    assert tensors["targets"].tolist() == [6, 7, 9, 0, 0]
    assert tensors["positions"].tolist() == [1, 2, 7, 0, 0]  # the token before, in the flat batch
    assert tensors["weights"].tolist() == [0.25, 0.25, 0.5, 0.0, 0.0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> PeftModel:
    """A model in float32, with LoRA weights that have an effect."""
    job = a_job(tmp_path_factory.mktemp("model"), tiny_base)
    seed_everything(job)
    loaded = load_model(job)
    with torch.no_grad():
        for name, parameter in loaded.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    return loaded.eval()


def test_logits_at_positions_are_those_of_the_whole_forward(model: PeftModel) -> None:
    input_ids = torch.tensor([row["input_ids"][:8] for row in rows(4)])
    positions = torch.tensor([0, 3, 9, 31])

    whole = base_of(model)(input_ids=input_ids).logits.flatten(0, 1)[positions]

    torch.testing.assert_close(logits_at(model, input_ids, positions), whole)


def test_padding_and_company_do_not_disturb_a_probe(model: PeftModel) -> None:
    sequences = [row["input_ids"] for row in rows(12, seed=3)]

    together = token_logprobs(model, sequences)

    for ids, scores in zip(sequences, together, strict=True):
        logits = base_of(model)(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        alone = [0.0, *(logits[at, ids[at + 1]].item() for at in range(len(ids) - 1))]
        assert scores == pytest.approx(alone, abs=1e-4)


def test_a_torn_or_foreign_checkpoint_is_ignored(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    job = a_job(tmp_path)
    for step in (3, 6):
        sealed(folder, step, job)
    assert [path.name for path in folder.iterdir()] == ["checkpoint-6"], "old ones are deleted"
    found = checkpoints.find_latest(folder, job)
    assert found is not None
    assert (found.seal.step, found.seal.elapsed_s) == (6, 1.5)

    lower = msgspec.structs.replace(job, micro_batch=2, max_time_s=9, directory="elsewhere")
    assert checkpoints.find_latest(folder, lower) == found, "it learns the same"
    other = msgspec.structs.replace(job, learning_rate=0.5)
    assert checkpoints.find_latest(folder, other) is None

    (folder / "checkpoint-9").mkdir()
    assert checkpoints.find_latest(folder, job) == found, "9 was never sealed"
    (found.path / "optimizer.pt").write_bytes(b"torn")
    assert checkpoints.find_latest(folder, job) is None


def sealed(folder: Path, step: int, job: Any) -> None:
    written = checkpoints.fresh_folder(folder) / f"checkpoint-{step}"
    written.mkdir(parents=True)
    (written / "optimizer.pt").write_bytes(b"state")
    checkpoints.seal_checkpoint(written, folder, step=step, elapsed_s=1.5, job=job)
    checkpoints.clear_fresh(folder)


def test_the_peak_is_the_childs_own_and_not_what_its_parent_held() -> None:
    held = b"x" * (256 * MIB)
    told = subprocess.run(
        [sys.executable, "-c", PEAK],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=LIMIT_S,
    )
    before, after = map(int, told.stdout.split())
    assert 0 < before < 128 * MIB < len(held)
    assert 60 * MIB < after - before < 70 * MIB
