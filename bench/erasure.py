"""Per-person keys against rewriting the store: what each costs, in time, bytes and on the hot path.

    python bench/erasure.py 1000000 [--keys]

Prints one JSON line a variant. `rewrite` deletes one person in a thousand and rewrites the file as
the daemon does; `keys` stores every text under its person's AES-GCM key. Files go to a temporary
folder and away again.
"""

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adaptd.daemon.store.database.database import Connection, Database

CHUNK = 20_000
EVENTS_OF_ONE = 20
_TEXT = """card payment refund transfer account limit pin blocked arrived abroad fee cash top up
exchange rate pending declined statement support verify identity phone lost stolen"""
_WORDS = np.array(_TEXT.split())
_ADD = """
INSERT INTO interactions BY NAME SELECT *, now() AS ingested_at, 'support' AS model, 'ok' AS status,
  true AS trusted, 'kafka' AS source, 'interactions.v1' AS topic, 0 AS "partition" FROM chunk
"""


def texts(random: np.random.Generator, rows: int) -> list[str]:
    words = random.choice(_WORDS, (rows, 24))
    return [json.dumps({"messages": [{"role": "user", "content": " ".join(w)}]}) for w in words]


def chunks(rows: int) -> Iterator[dict[str, Any]]:
    random, now = np.random.default_rng(7), datetime.now(UTC)
    for first in range(0, rows, CHUNK):
        size = min(CHUNK, rows - first)
        people = random.integers(0, max(1, rows // EVENTS_OF_ONE), size)
        yield {
            "id": [str(uuid.UUID(bytes=random.bytes(16))) for _ in range(size)],
            "time": [now + timedelta(milliseconds=first + n) for n in range(size)],
            "user": [f"person-{n:08d}" for n in people],
            "conversation": [f"conversation-{n:08d}" for n in people],
            "request": texts(random, size),
            "choices": texts(random, size),
            "position": list(range(first, first + size)),
        }


class PersonKeys:
    """What per-person keys cost on the way in: a key looked up or made, two texts sealed."""

    def __init__(self) -> None:
        self.keys: dict[str, AESGCM] = {}
        self.stored: list[tuple[str, bytes]] = []

    def seal(self, chunk: dict[str, Any]) -> dict[str, Any]:
        for user in set(chunk["user"]) - self.keys.keys():
            key = AESGCM.generate_key(128)
            self.keys[user] = AESGCM(key)
            self.stored.append((user, key))
        sealed = {
            name: [
                self._seal(user, text)
                for user, text in zip(chunk["user"], chunk[name], strict=True)
            ]
            for name in ("request", "choices")
        }
        return chunk | sealed

    def _seal(self, user: str, text: str) -> str:
        nonce = os.urandom(12)
        found = nonce + self.keys[user].encrypt(nonce, text.encode(), None)
        return json.dumps(found.hex())

    def open(self, user: str, text: str) -> bytes:
        raw = bytes.fromhex(json.loads(text))
        return self.keys[user].decrypt(raw[:12], raw[12:], None)


def fill(database: Database, rows: int, keys: PersonKeys | None) -> float:
    """Seconds to store the rows, making them left out."""
    spent_s = 0.0
    for chunk in chunks(rows):
        began = time.perf_counter()
        made = pa.table(keys.seal(chunk) if keys else chunk)

        def add(cursor: Connection, made: pa.Table = made) -> None:
            cursor.register("chunk", made)
            cursor.execute(_ADD)
            cursor.unregister("chunk")

        database.write_now(add)
        spent_s += time.perf_counter() - began
    return spent_s


def read_all(database: Database, keys: PersonKeys | None) -> float:
    """Seconds to read a tenth of the texts, as a snapshot does."""
    began = time.perf_counter()

    def work(cursor: Connection) -> None:
        query = 'SELECT "user", request FROM interactions WHERE position % 10 = 0'
        for user, request in cursor.execute(query).fetchall():
            keys.open(user, request) if keys else request.encode()

    database.write_now(work)
    return time.perf_counter() - began


async def rewrite(database: Database, rows: int) -> dict[str, float]:
    people = max(1, rows // EVENTS_OF_ONE)
    began = time.perf_counter()
    database.write_now(
        lambda c: c.execute(
            'DELETE FROM interactions WHERE "user" = ANY($people)',
            {"people": [f"person-{n:08d}" for n in range(0, people, 1000)]},
        )
    )
    deleted_s = time.perf_counter() - began
    began = time.perf_counter()
    pause = await database.rewrite()
    return {
        "delete_s": deleted_s,
        "rewrite_s": time.perf_counter() - began,
        "writers_wait_s": pause.writers_s,
        "readers_wait_s": pause.readers_s,
    }


def size_mb(path: Path) -> float:
    return path.stat().st_size / 1e6


async def measure(rows: int, *, with_keys: bool, folder: Path) -> dict[str, Any]:
    path = folder / "store.duckdb"
    keys = PersonKeys() if with_keys else None
    database = Database.open(path)
    ingest_s = fill(database, rows, keys)
    database.write_now(lambda c: None)
    read_s = read_all(database, keys)
    told: dict[str, Any] = {"variant": "keys" if with_keys else "rewrite", "rows": rows}
    told |= {"ingest_s": ingest_s, "events_per_s": rows / ingest_s, "read_a_tenth_s": read_s}
    database.close()
    told["size_mb"] = size_mb(path)
    if not with_keys:
        database = Database.open(path)
        told |= await rewrite(database, rows)
        database.close()
        told["size_after_mb"] = size_mb(path)
    told["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return told


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("rows", type=int)
    asked.add_argument("--keys", action="store_true")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        told = asyncio.run(measure(given.rows, with_keys=given.keys, folder=Path(folder)))
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in told.items()}
    sys.stdout.write(json.dumps(rounded) + "\n")


if __name__ == "__main__":
    main()
