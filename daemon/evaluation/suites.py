"""The items of a snapshot that candidates are measured on.

No statistics here: erasure reads suites too, and scipy takes a second to import.
"""

# Arrow has no types.
# pyright: reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from adaptd.daemon.wire.errors import AdaptdError

_COLUMNS = ["item", "cluster", "prompt_ids", "reference_ids", "reference"]


class Suite(StrEnum):
    FRESH = "fresh"  # the current holdout version
    GOLDEN = "golden"  # the policy's own file


class SuiteError(AdaptdError):
    """A snapshot's suite cannot be read."""


class Item(msgspec.Struct, frozen=True):
    """A prompt and the answer it should have. `reference_ids` end with the stop token."""

    item: str
    cluster: str
    prompt_ids: list[int]
    reference_ids: list[int]
    reference: str

    @property
    def key(self) -> str:
        """The digest of the measured content, without the item's name."""
        # Items of the same text have the same key, so they are scored once, for good.
        content = msgspec.msgpack.encode((self.prompt_ids, self.reference_ids, self.reference))
        return hashlib.sha256(content).hexdigest()[:32]

    @property
    def tokens(self) -> int:
        return len(self.prompt_ids) + len(self.reference_ids)


def read_suites(snapshot: Path) -> dict[Suite, list[Item]]:
    """Read every suite of a snapshot; the golden one is empty where the policy has no golden file.

    Raises:
        SuiteError: a file is damaged, or the fresh one is missing.
    """
    fresh = read_suite(snapshot / "fresh.parquet")
    golden = snapshot / "golden.parquet"
    return {Suite.FRESH: fresh, Suite.GOLDEN: read_suite(golden) if golden.exists() else []}


def read_suite(path: Path) -> list[Item]:
    """The items of one file, in its order.

    Raises:
        SuiteError: the file is missing or not a suite.
    """
    try:
        rows = pq.read_table(path, columns=_COLUMNS).to_pylist()
        return msgspec.convert(rows, list[Item])
    except (OSError, pa.ArrowInvalid, msgspec.ValidationError) as error:
        problem = f"the suite cannot be read ({str(error).splitlines()[0]})"
        raise SuiteError(str(path), problem, "Start a new run: it builds a new snapshot") from error


def suite_digest(items: Sequence[Item]) -> str:
    """The digest of a suite's items, in 16 hex digits, whatever their order."""
    keys = "\n".join(sorted(item.key for item in items))
    return hashlib.sha256(keys.encode()).hexdigest()[:16]
