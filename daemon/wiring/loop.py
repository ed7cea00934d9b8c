"""The stages between events and rollout: triggers, dataset, training, evaluation."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from adaptd.daemon.dataset.build import SnapshotBuilder
from adaptd.daemon.dataset.sealing import SealingService
from adaptd.daemon.dataset.service import DatasetService
from adaptd.daemon.domain.machine import core_count, has_gpu
from adaptd.daemon.domain.ports import AdapterHost, ReceiptCheck
from adaptd.daemon.policy.book import PolicyBook, PolicyVersion
from adaptd.daemon.scheduling.decide import Usable
from adaptd.daemon.scheduling.service import TriggerService
from adaptd.daemon.settings import Settings
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.examples.files import ExampleFiles
from adaptd.daemon.store.examples.sandbox import Sandbox
from adaptd.daemon.store.ingest.sink import EventStore
from adaptd.daemon.store.lifecycle.adapters import AdapterStore
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.store.lifecycle.snapshots import HoldoutStore, SnapshotStore
from adaptd.daemon.store.lifecycle.triggers import TriggerStore
from adaptd.daemon.system.supervision import Service
from adaptd.daemon.training.lora_rules import ServedLora
from adaptd.daemon.training.pauses import Waiting
from adaptd.daemon.training.preparation import (
    LARGEST_MICRO_BATCH_CPU,
    LARGEST_MICRO_BATCH_GPU,
    TrainerSettings,
)
from adaptd.daemon.training.service import TrainingService

if TYPE_CHECKING:
    from adaptd.daemon.evaluation.service import EvaluationService


@dataclass(frozen=True)
class Pipeline:
    """Services that meet only in the store."""

    triggers: TriggerService
    datasets: DatasetService
    sealing: SealingService
    training: TrainingService
    evaluate: Service

    def services(self) -> dict[str, Service]:
        return {
            "triggers": self.triggers.run,
            "dataset": self.datasets.run,
            "sealing": self.sealing.run,
            "training": self.training.run,
            "evaluation": self.evaluate,
        }


def build_pipeline(  # noqa: PLR0913 - one argument a part
    settings: Settings,
    database: Database,
    book: PolicyBook,
    sandbox: Sandbox,
    events: EventStore,
    *,
    host: AdapterHost,
    receipts: ReceiptCheck,
    served_format: Callable[[], Awaitable[str]],
    key: bytes,
    waiting: Waiting,
) -> Pipeline:
    """`key` is derive(secret, "holdouts"), `waiting` tells how many requests are being answered."""
    runs, tick_s = RunStore(database), settings.tick_s
    examples = ExampleFiles(database, settings.home / "examples")
    builder = SnapshotBuilder(
        examples=examples,
        snapshots=SnapshotStore(database),
        holdouts=HoldoutStore(database),
        sandbox=sandbox,
        bases=settings.bases,
        directory=settings.home / "snapshots",
        key=key,
    )
    triggers = TriggerService(
        book,
        runs=runs,
        adapters=AdapterStore(database),
        store=TriggerStore(database),
        preview=_Usable(builder),
        seal=events.seal,
        tick_s=tick_s,
    )
    datasets = DatasetService(runs, builder, book, tick_s=tick_s)

    async def evaluate() -> None:
        # Its statistics take a second to import, and routes must not wait for them (invariant 7).
        kind = await asyncio.to_thread(_evaluation_service)
        await kind(database, book, host, receipts, tick_s=tick_s).run()

    # Sealed files would lie beside an encrypted store in plain text.
    sealing = SealingService(examples, book, seals=not database.is_encrypted)
    training = _training(settings, database, book, served_format, waiting)
    return Pipeline(triggers, datasets, sealing, training, evaluate)


def _training(
    settings: Settings,
    database: Database,
    book: PolicyBook,
    served_format: Callable[[], Awaitable[str]],
    waiting: Waiting,
) -> TrainingService:
    upstream = settings.upstream
    asked = TrainerSettings(
        home=settings.home,
        bases=settings.bases,
        served=ServedLora(max_rank=upstream.max_lora_rank, targets=upstream.lora_target_modules),
        max_model_len=upstream.max_model_len,
        python=settings.trainer_python,
        threads=settings.trainer_threads or core_count(),
        tick_s=settings.tick_s,
        largest_micro_batch=LARGEST_MICRO_BATCH_GPU if has_gpu() else LARGEST_MICRO_BATCH_CPU,
    )
    return TrainingService(
        asked,
        served_format=served_format,
        runs=RunStore(database),
        adapters=AdapterStore(database),
        snapshots=SnapshotStore(database),
        book=book,
        waiting=waiting if settings.trainer_gives_way(gpu=has_gpu()) else None,
    )


def _evaluation_service() -> "type[EvaluationService]":
    from adaptd.daemon.evaluation.service import EvaluationService  # noqa: PLC0415 - see the caller

    return EvaluationService


class _Usable:
    """The triggers' question to the builder."""

    def __init__(self, builder: SnapshotBuilder) -> None:
        self._builder = builder

    async def __call__(self, version: PolicyVersion, *, as_of: datetime) -> Usable:
        found = await self._builder.preview(version, as_of=as_of)
        return Usable(
            new_examples=found.new_examples,
            train=found.train,
            holdout_items=found.holdout_items,
            holdout_groups=found.holdout_groups,
        )
