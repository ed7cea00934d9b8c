"""Builds the stages between events and rollout, and the services that remove people's data."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaptd.daemon.dataset.build import SnapshotBuilder
from adaptd.daemon.dataset.sealing import SealingService
from adaptd.daemon.dataset.service import DatasetService
from adaptd.daemon.domain.machine import core_count, has_gpu
from adaptd.daemon.domain.ports import AdapterHost, ReceiptCheck
from adaptd.daemon.erasure.retention import RetentionService
from adaptd.daemon.erasure.service import ErasureService, ErasureStores, Places, Rollouts
from adaptd.daemon.policy.book import PolicyBook
from adaptd.daemon.scheduling.service import TriggerService
from adaptd.daemon.settings import Settings
from adaptd.daemon.store.examples.sandbox import Sandbox
from adaptd.daemon.store.privacy.retention import Kind
from adaptd.daemon.store.stores import Stores
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
    """The stages from trigger to verdict: services that meet only in the store."""

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
    stores: Stores,
    book: PolicyBook,
    sandbox: Sandbox,
    *,
    host: AdapterHost,
    receipts: ReceiptCheck,
    served_format: Callable[[], Awaitable[str]],
    key: bytes,
    waiting: Waiting,
) -> Pipeline:
    """`key` is derive(secret, "holdouts"); `waiting` counts the requests being answered."""
    tick_s = settings.tick_s
    builder = _make_builder(settings, stores, sandbox, key)
    triggers = TriggerService(
        book,
        runs=stores.runs,
        adapters=stores.adapters,
        store=stores.triggers,
        preview=builder.preview,
        seal=stores.events.seal,
        tick_s=tick_s,
    )
    datasets = DatasetService(stores.runs, builder, book, tick_s=tick_s)

    async def evaluate() -> None:
        # Its statistics take a second to import, and routes must not wait for them (invariant 7).
        service = await asyncio.to_thread(
            _build_evaluation, stores, book, host, receipts, tick_s=tick_s
        )
        await service.run()

    # Sealed files would lie beside an encrypted store in plain text.
    sealing = SealingService(stores.examples, book, seals=not stores.database.is_encrypted)
    training = _build_training(settings, stores, book, served_format, waiting)
    return Pipeline(triggers, datasets, sealing, training, evaluate)


def _make_builder(
    settings: Settings, stores: Stores, sandbox: Sandbox, key: bytes
) -> SnapshotBuilder:
    return SnapshotBuilder(
        examples=stores.examples,
        snapshots=stores.snapshots,
        holdouts=stores.holdouts,
        sandbox=sandbox,
        bases=settings.bases,
        directory=settings.home / "snapshots",
        key=key,
    )


def _build_training(
    settings: Settings,
    stores: Stores,
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
        runs=stores.runs,
        adapters=stores.adapters,
        snapshots=stores.snapshots,
        book=book,
        waiting=waiting if settings.trainer_gives_way(gpu=has_gpu()) else None,
    )


def _build_evaluation(
    stores: Stores, book: PolicyBook, host: AdapterHost, receipts: ReceiptCheck, *, tick_s: float
) -> "EvaluationService":
    from adaptd.daemon.evaluation.comparison import Comparison  # noqa: PLC0415 - see the caller
    from adaptd.daemon.evaluation.service import EvaluationService  # noqa: PLC0415 - see the caller

    comparison = Comparison(
        book,
        host,
        snapshots=stores.snapshots,
        holdouts=stores.holdouts,
        adapters=stores.adapters,
        evaluations=stores.evaluations,
    )
    return EvaluationService(
        comparison,
        receipts,
        runs=stores.runs,
        adapters=stores.adapters,
        evaluations=stores.evaluations,
        tick_s=tick_s,
    )


@dataclass(frozen=True)
class PrivacyParts:
    """Erasures and retention: two services that meet only in the store."""

    erasures: ErasureService
    retention: RetentionService

    def services(self) -> dict[str, Service]:
        return {"erasures": self.erasures.run, "retention": self.retention.run}


def build_privacy(settings: Settings, stores: Stores, rollouts: Rollouts) -> PrivacyParts:
    """Build the services that remove people's data. `rollouts` ends those of tainted versions."""
    home = settings.home.absolute()
    places = Places(
        home=home,
        spool_dir=home / "gateway" / "spool",
        policies_dir=settings.policies_dir.absolute(),
        barred_s=settings.erasure_bar_s,
        rewrite_every_s=settings.erasure_rewrite_every_s,
        tick_s=settings.tick_s,
        letters_topic=settings.kafka_dead_letters_topic if settings.kafka_bootstrap else None,
    )
    tables = ErasureStores(
        database=stores.database,
        examples=stores.examples,
        erasures=stores.erasures,
        people=stores.person_rows,
        snapshots=stores.snapshots,
        runs=stores.runs,
    )
    keep: dict[Kind, float | None] = {
        "events": settings.keep_events_s,
        "dead_letters": settings.keep_dead_letters_s,
        "snapshots": settings.keep_snapshots_s,
        "runs": settings.keep_runs_s,
    }
    # A kind without a limit is kept for good.
    limits: dict[Kind, float] = {kind: s for kind, s in keep.items() if s is not None}
    return PrivacyParts(
        ErasureService(tables, places, rollouts=rollouts),
        RetentionService(stores.retention, stores.erasures, limits),
    )
