"""Writer of a snapshot's directory: byte-equal for equal input, whole or not there at all."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

PROBES = 48  # enough for the receipt's slope to settle (measured on 48)
PROBE_TOKENS = 256  # of context; longer prompts are cut at their end
_IDS = pa.list_(pa.int32())
_TRAIN = pa.schema(
    [
        ("input_ids", _IDS),
        ("loss_mask", pa.list_(pa.int8())),
        ("weight", pa.float32()),
        ("interaction", pa.string()),
        ("feedback", pa.string()),
        ("group", pa.string()),
    ]
)
_SUITE = pa.schema(
    [
        ("item", pa.string()),
        ("cluster", pa.string()),
        ("prompt_ids", _IDS),
        ("reference_ids", _IDS),
        ("reference", pa.string()),
    ]
)
_PROBES = pa.schema([("ids", _IDS), ("context_tokens", pa.int32())])


class TrainRow(msgspec.Struct, frozen=True, kw_only=True):
    """Ids of a whole conversation and its answer; loss where the mask is 1."""

    input_ids: list[int]
    loss_mask: list[int]
    interaction: str
    feedback: str
    group: str
    weight: float = 1.0


class SuiteRow(msgspec.Struct, frozen=True):
    """One item to measure on. `reference_ids` end with the stop token."""

    item: str
    cluster: str
    prompt_ids: list[int]
    reference_ids: list[int]
    reference: str


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """Content of the files, in its final order."""

    train: list[TrainRow]
    fresh: list[SuiteRow]
    golden: list[SuiteRow]


def train_row(
    prompt: Sequence[int], answer: Sequence[int], *, interaction: str, feedback: str, group: str
) -> TrainRow:
    """Make a row with loss on the answer and its stop token only (D14)."""
    return TrainRow(
        input_ids=[*prompt, *answer],
        loss_mask=[0] * len(prompt) + [1] * len(answer),
        interaction=interaction,
        feedback=feedback,
        group=group,
    )


def write_snapshot(directory: Path, contents: Contents, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the files and the manifest, then put the directory in place. Safe to repeat.

    Returns the manifest: `facts`, row counts, a SHA-256 per file and `content_hash` over them.
    """
    # A dot in front: `SnapshotBuilder.clean` removes what a killed build leaves.
    work = directory.with_name(f".{directory.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    tables = {
        "train": _make_table(contents.train, _TRAIN),
        "fresh": _make_table(contents.fresh, _SUITE),
        "golden": _make_table(contents.golden, _SUITE),
        "probes": pa.Table.from_pylist(probes(contents), schema=_PROBES),
    }
    files = {name: _write_table(work / f"{name}.parquet", table) for name, table in tables.items()}
    counts = {name: table.num_rows for name, table in tables.items()}
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    manifest = {**facts, "rows": counts, "files": files, "content_hash": digest}
    (work / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
    _put_in_place(work, directory)
    return manifest


def probes(contents: Contents) -> list[dict[str, Any]]:
    """Choose contexts that a swap receipt compares: golden prompts first, then training ones."""
    prompts = [row.prompt_ids for row in contents.golden]
    prompts += [row.input_ids[: row.loss_mask.index(1)] for row in contents.train]
    cut = [ids[:PROBE_TOKENS] for ids in prompts if len(ids) > 1]
    step = max(1, len(contents.golden) // PROBES)  # spread over the golden file's topics
    chosen = [*cut[: len(contents.golden) : step], *cut[len(contents.golden) :]][:PROBES]
    return [{"ids": ids, "context_tokens": len(ids)} for ids in chosen]


def _make_table(rows: Sequence[Any], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([msgspec.structs.asdict(row) for row in rows], schema=schema)


def _write_table(path: Path, table: pa.Table) -> str:
    # As plain as Parquet can be: equal rows must give equal bytes.
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)
    with path.open("rb") as file:
        os.fsync(file.fileno())  # before the rename, which would else outlive the content
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put_in_place(work: Path, directory: Path) -> None:
    if directory.exists():  # left by an interrupted build
        shutil.rmtree(directory)
    work.rename(directory)
