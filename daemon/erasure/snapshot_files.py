"""Take a person's rows out of a snapshot and out of the probes that were made of it.

The training rows go last: as long as they are there, a repeat finds all there is to do.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from adaptd.daemon.dataset.snapshot import PROBE_TOKENS
from adaptd.daemon.evaluation.suites import read_suite
from adaptd.daemon.store.privacy.forgetting import SnapshotFiles
from adaptd.daemon.training.adapter_files import MANIFEST, PROBES
from adaptd.daemon.wire.files import replace_file

_READ_ONLY, _SEALED, _OPEN = 0o444, 0o555, 0o755


class Gone(msgspec.Struct, frozen=True):
    """Rows that leave a snapshot. `contexts` are prompts in token ids; None: its files are gone.

    `scored` are the keys under which versions' scores on its items are kept.
    """

    contexts: list[list[int]] | None
    scored: list[str]


def look(files: SnapshotFiles) -> Gone:
    """Read what has to leave; changes nothing."""
    directory = Path(files.path)
    if not (directory / "train.parquet").exists():
        return Gone(None if any(row.side == "train" for row in files.rows) else [], [])
    train = pq.read_table(directory / "train.parquet")
    theirs = _row_keys(files)
    contexts = [
        _context_of(row)
        for row in train.to_pylist()
        if (row["interaction"], row["feedback"]) in theirs
    ]
    items = {(row.feedback, row.group) for row in files.rows}
    fresh = read_suite(directory / "fresh.parquet")
    return Gone(contexts, [i.key for i in fresh if (i.item, i.cluster) in items])


def strip_snapshot(files: SnapshotFiles, gone: Gone) -> None:
    """Write its files anew without the person. `content_hash` stays: what was trained on."""
    directory = Path(files.path)
    if not (directory / "train.parquet").exists():
        return
    items, theirs = {(row.feedback, row.group) for row in files.rows}, _row_keys(files)
    probes = _filter_rows(directory / "probes.parquet", lambda r: not _is_probe_of(r, gone))
    fresh = _filter_rows(
        directory / "fresh.parquet", lambda r: (r["item"], r["cluster"]) not in items
    )
    train = _filter_rows(
        directory / "train.parquet", lambda r: (r["interaction"], r["feedback"]) not in theirs
    )
    tables = {"probes": probes, "fresh": fresh, "train": train}
    content = {name: _write_parquet(table) for name, table in tables.items()}
    manifest = json.loads((directory / "manifest.json").read_bytes())
    manifest["rows"] |= {name: table.num_rows for name, table in tables.items()}
    manifest["files"] |= {name: _sha256_of(found) for name, found in content.items()}
    manifest["erased"] = True
    text = json.dumps(manifest, indent=1, sort_keys=True).encode()
    replace_file(directory / "manifest.json", text)
    for name in ("probes", "fresh", "train"):
        replace_file(directory / f"{name}.parquet", content[name])


def strip_probes(adapter: Path, gone: Gone) -> int | None:
    """Take the person's probes out of a version's files and seal it again.

    Returns how many probes are left; None where the version has no files. Without the snapshot
    nobody can tell whose the probes are, so none is left, and the version cannot be proven on
    another start of vLLM.
    """
    file = adapter / PROBES
    if not file.exists():
        return None
    found = json.loads(file.read_bytes())
    before = len(found["probes"])
    found["probes"] = [probe for probe in found["probes"] if not _is_probe_of(probe, gone)]
    adapter.chmod(_OPEN)
    try:
        if len(found["probes"]) < before:
            replace_file(file, msgspec.json.encode(found), mode=_READ_ONLY)
        _update_seal(adapter)
    finally:
        adapter.chmod(_SEALED)
    return len(found["probes"])


def _update_seal(adapter: Path) -> None:
    """Write the probes' digest into the manifest. The version's own hash does not cover them."""
    manifest = json.loads((adapter / MANIFEST).read_bytes())
    digest = _sha256_of((adapter / PROBES).read_bytes())
    if manifest["files"].get(PROBES) != digest:
        manifest["files"][PROBES] = digest
        text = msgspec.json.format(msgspec.json.encode(manifest))
        replace_file(adapter / MANIFEST, text, mode=_READ_ONLY)


def _row_keys(files: SnapshotFiles) -> set[tuple[str, str]]:
    return {(row.interaction, row.feedback) for row in files.rows}


def _context_of(row: dict[str, Any]) -> list[int]:
    mask: Sequence[int] = row["loss_mask"]
    first = mask.index(1) if 1 in mask else len(mask)
    return row["input_ids"][:first][:PROBE_TOKENS]


def _is_probe_of(probe: dict[str, Any], gone: Gone) -> bool:
    """A probe is a context, cut at its end where the server takes no more."""
    if gone.contexts is None:
        return True
    ids = list(probe["ids"])
    return any(context[: len(ids)] == ids for context in gone.contexts)


def _filter_rows(path: Path, keep: Any) -> pa.Table:
    table = pq.read_table(path)
    return table.filter(pa.array([keep(row) for row in table.to_pylist()], pa.bool_()))


def _write_parquet(table: pa.Table) -> bytes:
    """As snapshots are written: the same rows give the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_dictionary=False, write_statistics=False)
    return sink.getvalue().to_pybytes()


def _sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
