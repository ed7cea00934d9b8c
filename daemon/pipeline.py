"""The stages between events and rollout: triggers, dataset, training, evaluation."""

from dataclasses import dataclass
from datetime import datetime

from daemon.dataset.build import SnapshotBuilder
from daemon.dataset.service import DatasetService
from daemon.dataset.triggers import TriggerService
from daemon.domain.ports import AdapterHost, ReceiptCheck
from daemon.policy.book import PolicyBook, PolicyVersion
from daemon.policy.decide import Usable
from daemon.settings import Settings
from daemon.store.adapters import AdapterStore
from daemon.store.database import Database
from daemon.store.datasets import HoldoutStore, SnapshotStore
from daemon.store.event_reads import EventReads
from daemon.store.runs import RunStore
from daemon.store.sandbox import Sandbox
from daemon.store.triggers import TriggerStore
from daemon.supervision import Service


@dataclass(frozen=True)
class Pipeline:
    """Four services that meet only in the store."""

    triggers: TriggerService
    datasets: DatasetService

    def services(self) -> dict[str, Service]:
        return {"triggers": self.triggers.run, "dataset": self.datasets.run}


def build_pipeline(
    settings: Settings,
    database: Database,
    book: PolicyBook,
    sandbox: Sandbox,
    *,
    host: AdapterHost,
    receipts: ReceiptCheck,
) -> Pipeline:
    runs, tick_s = RunStore(database), settings.tick_s
    builder = SnapshotBuilder(
        events=EventReads(database),
        snapshots=SnapshotStore(database),
        holdouts=HoldoutStore(database),
        sandbox=sandbox,
        bases=settings.bases,
        directory=settings.home / "snapshots",
    )
    triggers = TriggerService(
        book,
        runs=runs,
        adapters=AdapterStore(database),
        store=TriggerStore(database),
        preview=_Usable(builder),
        tick_s=tick_s,
    )
    datasets = DatasetService(runs, builder, book, tick_s=tick_s)
    return Pipeline(triggers, datasets)


class _Usable:
    """The triggers' question to the builder."""

    def __init__(self, builder: SnapshotBuilder) -> None:
        self._builder = builder

    async def __call__(self, version: PolicyVersion, *, as_of: datetime) -> Usable:
        found = await self._builder.preview(version, as_of=as_of)
        return Usable(
            new_examples=found.new_examples,
            train=found.examples - found.holdout_items,
            holdout_items=found.holdout_items,
            holdout_groups=found.holdout_groups,
        )
