"""Every repository over one open database, each made once.

Some repositories keep something in memory: AdapterStore the version numbers that it must not issue
again, Tombstones whether anybody is barred, EventStore the ids that the newest transactions
brought. One object of each per process makes that memory the same for every part.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from adaptd.daemon.store.backups.restored import RestoreStore
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.examples.files import ExampleFiles
from adaptd.daemon.store.ingest.dead_letters import DeadLetterStore
from adaptd.daemon.store.ingest.event_reads import EventReads
from adaptd.daemon.store.ingest.halts import HaltStore
from adaptd.daemon.store.ingest.orphans import OrphanCount
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
from adaptd.daemon.store.lifecycle.triggers import TriggerStore
from adaptd.daemon.store.privacy.erasures import ErasureStore
from adaptd.daemon.store.privacy.person_rows import PersonRowsStore
from adaptd.daemon.store.privacy.retention import RetentionStore
from adaptd.daemon.store.status_reads import StatusStore
from adaptd.daemon.wire.clock import utc_now


@dataclass(frozen=True, kw_only=True)
class Stores:
    """The repositories of one process. Make it with `open_stores`, in `daemon/wiring` only."""

    database: Database
    # Events on their way in.
    events: EventStore
    event_reads: EventReads
    dead_letters: DeadLetterStore
    halts: HaltStore
    orphans: OrphanCount
    replays: ReplayStore
    # The life of snapshots, runs, adapters, rollouts and policies.
    adapters: AdapterStore
    evaluations: EvaluationStore
    guard: GuardStore
    holdouts: HoldoutStore
    policies: PolicyStore
    receipts: ReceiptStore
    rollouts: RolloutStore
    routes: RouteStore
    runs: RunStore
    snapshots: SnapshotStore
    triggers: TriggerStore
    examples: ExampleFiles
    # Privacy, restores and what is shown.
    tombstones: Tombstones
    erasures: ErasureStore
    person_rows: PersonRowsStore
    retention: RetentionStore
    restores: RestoreStore
    status: StatusStore


def open_stores(
    database: Database,
    *,
    examples_folder: Path,
    erasure_secret: str,
    dedupe_window: timedelta,
    clock: Callable[[], datetime] = utc_now,
) -> Stores:
    """Make every repository over `database`. `erasure_secret`: hex; see `pseudonym`."""
    tombstones = Tombstones(erasure_secret, clock=clock)
    events = EventStore(database, dedupe_window=dedupe_window, clock=clock, tombstones=tombstones)
    return Stores(
        database=database,
        events=events,
        event_reads=EventReads(database),
        dead_letters=DeadLetterStore(database, clock=clock),
        halts=HaltStore(database, clock=clock),
        orphans=OrphanCount(database),
        replays=ReplayStore(database, clock=clock),
        adapters=AdapterStore(database),
        evaluations=EvaluationStore(database),
        guard=GuardStore(database),
        holdouts=HoldoutStore(database),
        policies=PolicyStore(database),
        receipts=ReceiptStore(database),
        rollouts=RolloutStore(database),
        routes=RouteStore(database),
        runs=RunStore(database),
        snapshots=SnapshotStore(database),
        triggers=TriggerStore(database),
        examples=ExampleFiles(database, examples_folder),
        tombstones=tombstones,
        erasures=ErasureStore(database, erasure_secret, tombstones),
        person_rows=PersonRowsStore(database, erasure_secret),
        retention=RetentionStore(database),
        restores=RestoreStore(database),
        status=StatusStore(database),
    )
