"""The stages between events and rollout: triggers, dataset, training, evaluation."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from daemon.dataset.build import SnapshotBuilder
from daemon.dataset.sealing import SealingService
from daemon.dataset.service import DatasetService
from daemon.dataset.triggers import TriggerService
from daemon.domain.machine import core_count, has_gpu
from daemon.domain.ports import AdapterHost, ReceiptCheck
from daemon.policy.book import PolicyBook, PolicyVersion
from daemon.policy.decide import Usable
from daemon.settings import Settings
from daemon.store.adapters import AdapterStore
from daemon.store.database import Database
from daemon.store.datasets import HoldoutStore, SnapshotStore
from daemon.store.events import EventStore
from daemon.store.example_files import ExampleFiles
from daemon.store.runs import RunStore
from daemon.store.sandbox import Sandbox
from daemon.store.triggers import TriggerStore
from daemon.supervision import Service
from daemon.training.lora_rules import ServedLora
from daemon.training.pauses import Waiting
from daemon.training.preparation import (
    LARGEST_MICRO_BATCH_CPU,
    LARGEST_MICRO_BATCH_GPU,
    TrainerSettings,
)
from daemon.training.service import TrainingService

if TYPE_CHECKING:
    from daemon.evaluation.service import EvaluationService


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
    from daemon.evaluation.service import EvaluationService  # noqa: PLC0415 - see the caller

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
