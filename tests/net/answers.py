"""What the stores say of an installation: its rows, states and counts."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from adaptd.daemon.domain.dead_letters import LetterChoice
from adaptd.daemon.domain.ingest import HTTP, KAFKA
from adaptd.daemon.domain.states import RolloutState, RunState
from adaptd.daemon.store.backups.restored import RestoreStore
from adaptd.daemon.store.database.database import Database, rows
from adaptd.daemon.store.examples.files import ExampleFiles
from adaptd.daemon.store.examples.sandbox import Examples
from adaptd.daemon.store.ingest.dead_letters import DeadLetterStore
from adaptd.daemon.store.ingest.event_reads import EventReads
from adaptd.daemon.store.ingest.halts import HaltStore
from adaptd.daemon.store.ingest.replays import ReplayStore
from adaptd.daemon.store.ingest.sink import EventStore
from adaptd.daemon.store.ingest.tombstones import Tombstones
from adaptd.daemon.store.lifecycle.adapters import AdapterStore
from adaptd.daemon.store.lifecycle.evaluations import EvaluationStore
from adaptd.daemon.store.lifecycle.guard_facts import GuardStore
from adaptd.daemon.store.lifecycle.policies import PolicyStore
from adaptd.daemon.store.lifecycle.receipts import ReceiptStore
from adaptd.daemon.store.lifecycle.rollouts import RolloutStore
from adaptd.daemon.store.lifecycle.routes import RouteStore
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.store.lifecycle.snapshots import HoldoutStore, SnapshotStore
from adaptd.daemon.store.lifecycle.transitions import audit_digest
from adaptd.daemon.store.lifecycle.triggers import TriggerStore
from adaptd.daemon.store.privacy.erasures import ErasureStore
from adaptd.daemon.store.privacy.retention import RetentionStore
from adaptd.daemon.store.status_reads import StatusStore
from adaptd.daemon.web.metrics import render_metrics
from adaptd.daemon.web.ports import LiveFacts
from adaptd.daemon.wire.routes import RouteTable, choose
from tests.net.artifacts import as_json
from tests.net.texts import families
from tests.support.clock import Clock

MODELS = ("support", "billing")
MOST = 1000
_TABLES = "SELECT table_name AS name FROM duckdb_tables() WHERE database_name = 'store' ORDER BY 1"
_COLUMNS = """\
SELECT table_name || '.' || column_name AS name, data_type || CASE WHEN is_nullable THEN '' ELSE
' NOT NULL' END AS type FROM duckdb_columns() WHERE database_name = 'store' AND NOT internal"""
_AUDIT = "SELECT * FROM audit ORDER BY sequence"


class Answers:
    """One store, asked at one moment. `examples`: the folder of its sealed files."""

    def __init__(self, database: Database, now: datetime, *, secret: str, examples: Path) -> None:
        self.database, self.now, self.clock = database, now, Clock(now)
        self.secret, self.examples = secret, examples

    async def all(self, scratch: Path) -> dict[str, Any]:
        """Everything, by the part of the store."""
        return as_json(
            {
                "tables": await self.tables(),
                "columns": await self.columns(),
                "surfaces": await self.surfaces(),
                "metrics": await self.metrics(),
                "events": await self.events(),
                "examples": await self.judged_examples(scratch),
                "policies": await PolicyStore(self.database).all(),
                "datasets": await self.datasets(),
                "triggers": await self.triggers(),
                "runs": await self.runs(),
                "adapters": await AdapterStore(self.database).list(),
                "evaluations": await EvaluationStore(self.database).list(limit=MOST),
                "rollouts": await self.rollouts(),
                "letters": await self.letters(),
                "ingestion": await self.ingestion(),
                "erasures": await ErasureStore(
                    self.database, self.secret, Tombstones(self.secret, clock=self.clock)
                ).list(MOST),
                "history": await self.history(),
                "audit": await self.audit(),
            }
        )

    async def ask(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        return await self.database.read(lambda cursor: rows(cursor, statement, **values))

    async def tables(self) -> dict[str, int]:
        """How many rows each table has."""
        names = [row["name"] for row in await self.ask(_TABLES)]
        counted = [await self.ask(f"SELECT count(*) AS n FROM {name}") for name in names]
        return {name: found[0]["n"] for name, found in zip(names, counted, strict=True)}

    async def columns(self) -> dict[str, str]:
        return {row["name"]: row["type"] for row in await self.ask(_COLUMNS)}

    async def surfaces(self) -> dict[str, Any]:
        """What `adaptd status` is made of, less the size of files."""
        store = StatusStore(self.database)
        since = self.now - timedelta(days=7)
        facts = as_json(await store.facts(self.now))
        del facts["store_bytes"]
        traffic = {model: await store.traffic(model, since, now=self.now) for model in MODELS}
        return {"facts": facts, "traffic": traffic}

    async def metrics(self) -> dict[str, Any]:
        """Families and samples of a scrape, less sizes and the release's number."""
        facts = await StatusStore(self.database).facts(self.now)
        text = render_metrics(facts, LiveFacts(started_at=self.now)).decode()
        samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[:1] != "#")
        left_out = ("process_", "adaptd_info", "adaptd_store_bytes")
        kept = {name: float(n) for name, n in samples.items() if not name.startswith(left_out)}
        return {"families": families(text), "samples": kept}

    async def events(self) -> dict[str, Any]:
        reads, events = EventReads(self.database), self._events()
        offsets = {source: await events.offsets(source) for source in (KAFKA, HTTP)}
        return {
            "counts": await reads.counts(),
            "times": await reads.times(),
            "orphans": await reads.orphans(),
            "offsets": {
                source: [[*place, stored] for place, stored in sorted(found.items())]
                for source, found in offsets.items()
            },
            "feedback": await self.ask("SELECT * FROM feedback ORDER BY id, ingested_at"),
            "interactions": await self.ask("SELECT * FROM interactions ORDER BY id, ingested_at"),
        }

    def _events(self) -> EventStore:
        return EventStore(self.database, dedupe_window=timedelta(days=1), clock=self.clock)

    async def judged_examples(self, scratch: Path) -> dict[str, Any]:
        """What a policy selects from, whole, and as the files that a child may read."""
        found = {}
        for model in MODELS:
            folder = scratch / model
            folder.mkdir(parents=True)
            files = ExampleFiles(self.database, self.examples)
            gathered = await files.gather(model, as_of=self.now, into=folder)
            path = folder / "all.parquet"
            reads = EventReads(self.database)
            await reads.export_examples(path, as_of=self.now, model=model)
            found[model] = {
                "all": _sorted_rows(_rows_of(path)),
                "judged": _sorted_rows(_judged_rows(gathered)),
            }
        return found

    async def datasets(self) -> dict[str, Any]:
        snapshots, holdouts = SnapshotStore(self.database), HoldoutStore(self.database)
        return {
            model: {
                "snapshots": await snapshots.list(model),
                "seen": await snapshots.seen_feedback(model),
                "members": await holdouts.members(model),
            }
            for model in MODELS
        }

    async def triggers(self) -> dict[str, Any]:
        store, since = TriggerStore(self.database), self.now - timedelta(days=7)
        kinds = ("correction", "rating")
        window = {"since": since, "until": self.now, "kinds": kinds}
        return {
            model: {
                "crons": await store.crons(model),
                "newest": await store.newest_snapshot(model),
                "new": await store.count_new(model, **window),
                "judged": await store.count_judged(model, since=since),
            }
            for model in MODELS
        }

    async def runs(self) -> dict[str, Any]:
        store = RunStore(self.database)
        active = [await store.active(model) for model in MODELS]
        return {
            "all": await store.list(limit=MOST),
            "active": [run and run.run_id for run in active],
            "states": {
                state.value: [run.run_id for run in await store.in_state(state)]
                for state in RunState
            },
        }

    async def rollouts(self) -> dict[str, Any]:
        """With what the guard sees, and where requests would go."""
        store, guard = RolloutStore(self.database), GuardStore(self.database)
        receipts = ReceiptStore(self.database)
        on_step = [r for r in await store.unfinished() if r.state is RolloutState.STEP]
        seen = {
            rollout.rollout_id: await guard.facts(
                rollout,
                maturity=timedelta(minutes=1),
                armed_at=rollout.created_at,
                watching=False,
                now=self.now,
            )
            for rollout in on_step
        }
        table = await RouteStore(self.database).current()
        return {
            "all": await store.list(limit=MOST),
            "unfinished": [rollout.rollout_id for rollout in await store.unfinished()],
            "guard": seen,
            "halted": await guard.halted(),
            "table": table,
            "arms": table and arms(table),
            "proven": await receipts.passed_on("instance-1"),
        }

    async def letters(self) -> dict[str, Any]:
        store = DeadLetterStore(self.database, clock=self.clock)
        waiting, _ = await store.waiting(LetterChoice(), limit=MOST, max_bytes=1 << 20)
        unpublished = await store.unpublished(limit=MOST, max_bytes=1 << 20)
        return {
            "by_reason": await store.by_reason(),
            "all": await store.list(limit=MOST),
            "waiting": waiting,
            "unpublished": [letter.id for letter in unpublished],
        }

    async def ingestion(self) -> dict[str, Any]:
        halts = HaltStore(self.database, clock=self.clock)
        return {
            "halt": await halts.current(),
            "halts": await halts.list(),
            "replays": await ReplayStore(self.database, clock=self.clock).list(),
            "restore": await RestoreStore(self.database).newest(),
            "retention": await RetentionStore(self.database).last_run("events"),
        }

    async def history(self) -> dict[str, Any]:
        """Every change of state, by what changed."""
        asked = "SELECT DISTINCT subject_kind AS kind, subject FROM transitions ORDER BY ALL"
        store = StatusStore(self.database)
        return {
            f"{row['kind']} {row['subject']}": await store.history(row["kind"], row["subject"])
            for row in await self.ask(asked)
        }

    async def audit(self) -> list[dict[str, Any]]:
        """The chain, with what each link's digest comes out as."""
        return [
            row
            | {
                "computed": audit_digest(
                    row["sequence"],
                    row["happened_at"],
                    row["actor"],
                    row["action"],
                    row["subject"],
                    row["detail"],
                    row["previous"],
                )
            }
            for row in await self.ask(_AUDIT)
        ]


def arms(table: RouteTable, units: int = 40) -> dict[str, list[str]]:
    """Which version answers which unit, by alias, with the lease and without."""
    return {
        f"{alias} {'with' if held else 'without'} lease": [
            "{0.arm} {0.adapter} {0.weight}".format(choose(route, f"unit-{n}", lease_held=held))
            for n in range(units)
        ]
        for alias, route in table.routes.items()
        for held in (True, False)
    }


def _judged_rows(files: Examples) -> list[dict[str, Any]]:
    """The tail's rows, and the sealed ones of answers that nothing was said of since.

    Which are sealed is left out: a release with other columns seals them anew.
    """
    touched = {row["id"] for row in _rows_of(files.touched)} if files.touched else set()
    sealed = [row for path in files.sealed for row in _rows_of(path)]
    return [*_rows_of(files.tail), *(row for row in sealed if row["id"] not in touched)]


def _rows_of(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def _sorted_rows(found: Sequence[Any]) -> Sequence[Any]:
    return sorted(as_json(found), key=lambda row: json.dumps(row, sort_keys=True))
