"""A home folder in which a person is in everything, and searches that find every trace."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from adaptd.daemon.dataset.groups import message_key
from adaptd.daemon.dataset.snapshot import Contents, SuiteRow, train_row, write_snapshot
from adaptd.daemon.domain.erasures import Erasure, ErasureState, Person
from adaptd.daemon.domain.states import AdapterState, RunState
from adaptd.daemon.erasure.service import ErasureService, Places
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.lifecycle.adapters import AdapterRow, Origin
from adaptd.daemon.store.lifecycle.snapshots import HoldoutStore, Member, Snapshot
from adaptd.daemon.wire.errors import RefusedError
from tests.support.event_samples import NOON, a_correction, a_rating, an_interaction
from tests.support.ingesting import UNSIGNED, Ingesting
from tests.support.stores import erasure_stores, stores_over

SECRET = "5ec2e7" * 8
PERSON, OTHER = "person-zq7f", "person-kept"
WHOM = Person(PERSON)
WORDS = "xylophone-quartz"  # only the person writes this
TOKENS = [901, 902, 903, 904, 905]  # and only their prompt is made of these
KEPT_TOKENS = [11, 12, 13, 14, 15]
SPOOL = Path("gateway") / "spool"


class NoRollouts:
    """No rollout is on its way."""

    async def act_on_rollout(self, rollout_id: str, action: Any, *, reason: str, actor: str) -> Any:
        raise RefusedError(rollout_id, "there is none", "")


class ErasureWorld:
    """The store and its services over one home folder."""

    def __init__(
        self, home: Path, database: Database | None = None, *, kind: Any = ErasureService
    ) -> None:
        self.home = home
        self.policies = home.parent / "policies"
        self.database = database or Database.open(home / "store.duckdb")
        self.ingesting = Ingesting(self.database, NOON + timedelta(hours=1))
        self.all_stores = stores_over(
            self.database, home / "examples", secret=SECRET, clock=self.ingesting.clock
        )
        self.ingesting.sink = self.all_stores.events
        self.adapters = self.all_stores.adapters
        self.runs = self.all_stores.runs
        self.snapshots = self.all_stores.snapshots
        self.examples = self.all_stores.examples
        self.stores = erasure_stores(self.all_stores)
        places = Places(
            home=home,
            spool_dir=home / SPOOL,
            policies_dir=self.policies,
            barred_s=86400,
            rewrite_every_s=0,
            tick_s=0.05,
        )
        self.service: ErasureService = kind(
            self.stores, places, rollouts=NoRollouts(), clock=self.ingesting.clock
        )

    async def erase(self, person: Person = WHOM) -> Erasure:
        begun = await self.service.begin(person, reason="asked", actor="operator:test")
        return await self.finish(begun.erasure_id)

    async def finish(self, erasure_id: str) -> Erasure:
        for _ in range(20):
            await self.service.tick()
            found = await self.service.get(erasure_id)
            if found.state is ErasureState.DONE:
                return found
        raise AssertionError(f"it waits for {found.waits_for} in {found.state}")

    async def plant(self) -> None:
        """Two people, each in everything; the person's parts are told apart by their words."""
        await self.ingesting.add(*_events_of(PERSON, "pzq", WORDS), *_events_of(OTHER, "k", "kind"))
        await self.ingesting.add(
            b'{"schema":"adaptd.interaction/9","user":"%b"}' % PERSON.encode(),
            b'{"schema":"adaptd.interaction/9","id":"pzq-1"}',
            b'{"schema":"adaptd.interaction/9","user":"%b"}' % OTHER.encode(),
            sender=UNSIGNED,
        )
        await self.plant_snapshot("snapshot-run-a", with_person=True)
        await self.plant_snapshot("snapshot-run-b", with_person=False)
        await self.plant_versions()
        self.plant_files()

    async def plant_snapshot(self, name: str, *, with_person: bool) -> None:
        rows = [("k-1", "kf-1", KEPT_TOKENS, OTHER, "gk")]
        rows += [("pzq-1", "pzqf-1", TOKENS, PERSON, "gp")] if with_person else []
        contents = Contents(
            train=[
                train_row(ids, [7], interaction=i, feedback=f, group=g) for i, f, ids, _, g in rows
            ],
            fresh=[SuiteRow(f"{f}h", g, ids, [7], "seven") for _, f, ids, _, g in rows],
            golden=[],
        )
        directory = self.home / "snapshots" / name
        manifest = write_snapshot(directory, contents, {})
        lineage = [
            {"side": side, "interaction": i, "feedback": f + end, "user": user, "group": g}
            for i, f, _, user, g in rows
            for side, end in (("train", ""), ("holdout", "h"))
        ]
        snapshot = Snapshot(
            snapshot_id=name, model="support", policy_version=1, as_of=NOON,
            content_hash=manifest["content_hash"], path=str(directory), train_rows=len(rows),
            holdout_rows=len(rows), golden_rows=0, holdout_version=1, created_at=NOON,
            manifest=manifest,
        )  # fmt: skip
        await self.snapshots.add(snapshot, lineage)
        members = [
            Member(member=member, group=group, side="train")
            for _, _, _, user, group in rows
            for member in (f"c:talk-{user}", message_key(f"of {user}"))
        ]
        await HoldoutStore(self.database).assign("support", members, now=NOON)

    async def plant_versions(self) -> None:
        """One trained on the person, one continued from that, and one of somebody else."""
        first = await self.a_version("snapshot-run-a", "aa")
        await self.a_version("snapshot-run-b", "bb", parent=first.name)
        await self.a_version("snapshot-run-b", "cc")
        for state in (AdapterState.CANARY, AdapterState.LIVE):
            await self.adapters.move(first.name, state, actor="test", reason="")

    async def a_version(self, snapshot: str, mark: str, parent: str | None = None) -> AdapterRow:
        run = await self.runs.create(
            "support", policy_version=1, trigger={}, start_from=parent, actor="test", now=NOON
        )
        directory = self.home / "runs" / run.run_id
        await self.runs.set_snapshot(run.run_id, snapshot)
        await self.runs.set_process(run.run_id, None, directory)
        (directory / "checkpoints").mkdir(parents=True)
        (directory / "checkpoints" / "rows.bin").write_bytes(f"{snapshot} {mark}".encode())
        origin = Origin(
            content_hash=mark * 32, base_digest="b", run_id=run.run_id, parent=parent,
            snapshot_id=snapshot,
        )  # fmt: skip
        row = await self.adapters.add(
            "support", origin, folder=self.home / "adapters", actor="test", now=NOON
        )
        _adapter_files(Path(row.path), self.home / "snapshots" / snapshot)
        await self.runs.move(run.run_id, RunState.CANCELLED, actor="test", reason="", now=NOON)
        return row

    def plant_files(self) -> None:
        """A log, a spool that was sent but for one line, a golden file."""
        logs, spool = self.home / "logs", self.home / SPOOL
        logs.mkdir()
        (logs / "vllm.log").write_text(f"began\nrequest of {PERSON}: {WORDS}\nrequest of {OTHER}\n")
        sealed = self.home / "examples" / "support"
        sealed.mkdir(parents=True)
        (sealed / "2026-11-01-aa.parquet").write_text(f"sealed {PERSON} {WORDS}")
        spool.mkdir(parents=True)
        lines = [
            json.dumps({"id": f"s{n}", "user": user}) for n, user in enumerate((PERSON, OTHER))
        ]
        (spool / "000000000001.ndjson").write_text("\n".join(lines) + "\n")
        sent = {"segment": 1, "offset": len("\n".join(lines)) + 1}
        (spool / "position.json").write_text(json.dumps(sent))
        (spool / "refused.ndjson").write_text("\n".join(lines) + "\n")
        self.policies.mkdir(exist_ok=True)
        (self.policies / "golden.jsonl").write_text(f'{{"a": 1}}\n{{"user": "{PERSON}"}}\n')


def _events_of(user: str, mark: str, words: str) -> list[dict[str, Any]]:
    """Ratings, corrections and comments by them and about them, in one conversation."""
    texts = {
        "request": {"messages": [{"role": "user", "content": f"of {user}"}], "note": words},
        "choices": [{"message": {"role": "assistant", "content": f"{words} answered"}}],
        "conversation": f"talk-{user}",
    }
    elsewhere = an_interaction(id=f"{mark}-else", user="somebody", conversation=f"else-{mark}")
    return [
        an_interaction(id=f"{mark}-1", user=user, tenant="desk", **texts),
        an_interaction(id=f"{mark}-2", user=None, tenant="desk", **texts),
        a_correction(f"{mark}-1", words, id=f"{mark}f-1", user=user, tenant="desk"),
        a_correction(f"{mark}-1", words, id=f"{mark}f-1h", user="reviewer", tenant="desk"),
        elsewhere,
        a_rating(f"{mark}-else", id=f"{mark}f-2", user=user),
    ]


def _adapter_files(adapter: Path, snapshot: Path) -> None:
    """A version as the trainer seals it, as far as an erasure cares."""
    adapter.mkdir(parents=True)
    probes = pq.read_table(snapshot / "probes.parquet").to_pylist()
    content = {"probes": [row | {"base": [0.0], "adapter": [0.0]} for row in probes]}
    (adapter / "probes.json").write_text(json.dumps(content))
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    (adapter / "manifest.json").write_text(json.dumps({"files": {"probes.json": "as it was"}}))
    for file in adapter.iterdir():
        file.chmod(0o444)
    adapter.chmod(0o555)


def traces(home: Path, words: Iterable[str], tokens: list[int]) -> list[str]:
    """Every file with a word in its bytes, and every Parquet or JSON file with a row of tokens."""
    found = []
    asked = [word.encode() for word in words]
    for path in _all_files(home):
        content = path.read_bytes()
        found += [f"{path}: {word.decode()}" for word in asked if word in content]
        text = _unpacked(path)
        found += [f"{path}: {word} unpacked" for word in words if word in text]
        if str(tokens)[1:-1] in text:
            found.append(f"{path}: tokens")
    return found


def store_traces(path: Path, words: Iterable[str]) -> list[str]:
    """Every table of a closed store with a word in any row, whatever its compression."""
    connection = duckdb.connect(":memory:")
    connection.execute(f"ATTACH '{path}' AS store (READ_ONLY)")
    connection.execute("USE store")
    found = []
    tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    for (table,) in tables:
        rows = connection.execute(f"SELECT t::VARCHAR FROM {table} t").fetchall()
        text = "\n".join(row[0] or "" for row in rows)
        found += [f"{table}: {word}" for word in words if word in text]
    connection.close()
    return found


def _unpacked(path: Path) -> str:
    if path.suffix == ".parquet":
        return str(pq.read_table(path).to_pylist())
    return path.read_text(errors="replace") if path.suffix == ".json" else ""


def _all_files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


# As a program of its own: erase in a home folder, and be killed at a point.


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killing(point: str) -> tuple[Any, Any]:
    """The service and the database, one of which ends the process before or after a method."""
    when, _, name = point.partition(":")

    def wrap(base: Any) -> Any:
        if not hasattr(base, name):
            return base
        method = getattr(base, name)
        if asyncio.iscoroutinefunction(method):

            async def replaced(self: Any, *given: Any, **named: Any) -> Any:
                if when == "before":
                    _killed()
                await method(self, *given, **named)
                _killed()
        else:

            def replaced(self: Any, *given: Any, **named: Any) -> Any:
                if when == "before":
                    _killed()
                method(self, *given, **named)
                _killed()

        return type(f"Killing{base.__name__}", (base,), {name: replaced})

    return wrap(ErasureService), wrap(Database)


async def _main(home: Path, point: str) -> None:
    service, database = _killing(point)
    assert (service, database) != (ErasureService, Database), f"there is no {point}"
    world = ErasureWorld(home, database.open(home / "store.duckdb"), kind=service)
    await world.erase()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), sys.argv[2]))
